"""The fake model is product code: LangChain's own suite for chat models, and what it promises beyond that."""

import time
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from kernel.errors import ChainError
from llm.providers.fake import FakeChatModel

#: What a clever model would ask for in the standard suites.
CLEVER = [
    {"name": "magic_function", "args": {"input": 3}},
    {"name": "magic_function_no_args", "args": {}},
    {"name": "get_weather", "args": {"location": "Paris"}},
    {"name": "greeting_generator", "args": {"answer_style": "pirate"}},
    {"name": "Joke", "args": {"setup": "Why?", "punchline": "Because."}},
    {"name": "JokeDict", "args": {"setup": "Why?", "punchline": "Because."}},
    {"name": "unicode_customer", "args": {"customer_name": "你好啊集团 こんにちは株式会社", "description": "a group"}},
]


class TestStandard(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[FakeChatModel]:
        return FakeChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "fake"}

    @property
    def has_tool_choice(self) -> bool:
        return False  # it asks for what its script says


class TestStandardCalls(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[FakeChatModel]:
        return FakeChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "fake", "tool_calls": CLEVER}

    @property
    def has_tool_choice(self) -> bool:
        return False


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


def asked_for(chunk: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(call["name"], call["args"]) for call in chunk.tool_calls]


async def test_answers_are_given_in_turn_and_the_last_one_stays() -> None:
    model = FakeChatModel(answers=["one", "two"])

    assert [await said(model) for _ in range(3)] == ["one", "two", "two"]


async def test_an_answer_to_what_is_asked_takes_no_turn_of_the_others() -> None:
    model = FakeChatModel(answers=[{"when": "weather", "text": "rain"}, "one", "two"])

    assert await said(model) == "one"
    assert await said(model, HumanMessage("the weather?")) == "rain"
    assert await said(model) == "two"


async def test_tools_are_asked_for_only_if_offered_and_until_there_is_a_result() -> None:
    @tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    model = FakeChatModel(text="rain", tool_calls=[{"name": "weather", "args": {"city": "Bonn"}}])
    asking = await model.bind_tools([weather]).ainvoke("weather?")

    assert asked_for(asking) == [("weather", {"city": "Bonn"})]
    assert (await model.ainvoke("weather?")).tool_calls == []
    result = ToolMessage("rainy", tool_call_id="call_1")
    answered = await model.bind_tools([weather]).ainvoke([HumanMessage("weather?"), asking, result])
    assert (answered.content, answered.tool_calls) == ("rain", [])


async def test_errors_and_delays_are_those_of_each_call() -> None:
    model = FakeChatModel(text="a", errors=["provider_unavailable", ""], delays=[0, 0.1])

    with pytest.raises(ChainError):
        await said(model)
    begun = time.monotonic()
    assert await said(model) == "a"
    assert time.monotonic() - begun >= 0.1
    assert await said(model) == "a"


async def test_it_tells_of_cached_tokens() -> None:
    whole = None
    for chunk in await chunks(FakeChatModel(text="a b", cached_tokens=40)):
        whole = chunk if whole is None else whole + chunk

    assert whole is not None
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["input_token_details"] == {"cache_read": 40}
    assert whole.usage_metadata["input_tokens"] >= 40
