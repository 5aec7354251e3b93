"""A model whose tokens say when they were due. It is registered as a provider is: in LLM.PROVIDERS."""

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk

from benchmarks.pace import due_times, stamp
from llm.providers.fake import FakeChatModel


class ClockModel(FakeChatModel):
    """`tokens` and `tokens_per_second` as the fake model has them."""

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for due in due_times(self.tokens or 0, self.tokens_per_second or 0):
            yield ChatGenerationChunk(message=AIMessageChunk(content=stamp(due) if self.tokens_per_second else "word "))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata={"finish_reason": "stop"}))


def build(config: dict[str, Any]) -> ClockModel:
    return ClockModel(**config)
