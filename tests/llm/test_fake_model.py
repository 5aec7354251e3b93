"""The fake model is product code: LangChain's own suite for chat models, and what it promises beyond that."""

import time
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage
from langchain_tests.unit_tests import ChatModelUnitTests

from kernel.errors import ChainError
from llm.providers.fake import FakeChatModel


class TestStandard(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[FakeChatModel]:
        return FakeChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "fake"}


async def chunks(model: FakeChatModel, *messages: Any) -> list[AIMessageChunk]:
    return [chunk async for chunk in model.astream(list(messages or [HumanMessage("hello")]))]


async def said(model: FakeChatModel, *messages: Any) -> str:
    return "".join(str(chunk.content) for chunk in await chunks(model, *messages))


async def test_it_repeats_the_question_the_same_way_each_time() -> None:
    messages = [SystemMessage("be kind"), HumanMessage("how  are\nyou?")]

    assert await said(FakeChatModel(), *messages) == "You said: how  are\nyou?"
    assert (await FakeChatModel().ainvoke(messages)).content == FakeChatModel().invoke(messages).content


async def test_it_cites_the_first_passage() -> None:
    asked = HumanMessage("The warranty lasts 24 months. It starts today. [1]\nOther. [2]\n\nQuestion: how long?")

    assert await said(FakeChatModel(), asked) == "The warranty lasts 24 months. [1]"


async def test_it_says_as_many_tokens_as_asked() -> None:
    pieces = [chunk for chunk in await chunks(FakeChatModel(text="a b ", tokens=1000)) if chunk.content]

    assert len(pieces) == 1000


async def test_it_counts_and_ends_like_a_real_one() -> None:
    whole = None
    for chunk in await chunks(FakeChatModel(text="a b c")):
        whole = chunk if whole is None else whole + chunk

    assert whole is not None
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 3
    assert whole.response_metadata["finish_reason"] == "stop"


async def test_it_keeps_to_max_tokens_and_stop() -> None:
    assert await said(FakeChatModel(text="a b c d", max_tokens=2)) == "a b "
    assert await said(FakeChatModel(text="a b STOP c", stop=["STOP"])) == "a b "


async def test_it_keeps_its_rate_by_the_clock() -> None:
    begun = time.monotonic()

    await chunks(FakeChatModel(text="a ", tokens=20, tokens_per_second=100))

    assert 0.15 < time.monotonic() - begun < 1


async def test_it_fails_after_the_tokens_it_was_told() -> None:
    stream = FakeChatModel(text="a b c", error="provider_timeout", error_after=1).astream("x")

    assert (await anext(stream)).content == "a "
    with pytest.raises(ChainError) as failure:
        await anext(stream)

    assert failure.value.code == "provider_timeout"
