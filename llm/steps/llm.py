"""The `llm` step: call a model with the messages so far."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from langchain_core.messages import HumanMessage
from pydantic import field_validator

from kernel.errors import Misconfigured
from llm import aliases, calls
from llm.events import Event, Text
from llm.state import WorkflowState
from llm.steps.base import Step


class LlmStep(Step):
    type: Literal["llm"] = "llm"
    #: An alias of DJANGO_CHAIN["LLM"]["MODELS"]; empty: the default one.
    model: str = ""

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        try:
            aliases.describe(model)
        except Misconfigured as error:
            raise ValueError(error.message) from error
        return model

    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        messages = state.messages or [*state.history, HumanMessage(state.question)]
        state.text, state.output = "", None
        pieces: list[str] = []
        try:
            async with aclosing(calls.stream_answer(state, self.model, messages)) as events:
                async for event in events:
                    if event.__class__ is Text:
                        pieces.append(event.text)
                    yield event
        finally:
            state.text = "".join(pieces)
