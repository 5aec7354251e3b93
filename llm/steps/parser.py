"""The `parser` step: make a value of the whole answer."""

from collections.abc import AsyncGenerator
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from kernel.errors import Misconfigured
from llm.errors import ProviderBadResponse
from llm.events import Event
from llm.parsers import Parser
from llm.registry import parsers
from llm.state import WorkflowState
from llm.steps.base import Step


class ParserStep(Step):
    type: Literal["parser"] = "parser"
    #: A registered parser and what it takes.
    parser: str = "str"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _build(self) -> Self:
        try:
            _ = self._parser
        except Misconfigured as error:
            raise ValueError(error.message) from error
        return self

    @cached_property
    def _parser(self) -> Parser:
        built: Parser = parsers.get(self.parser)(self.options)
        return built

    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        try:
            state.output = self._parser.parse(state.text)
        except ValueError as error:
            raise ProviderBadResponse("The answer does not have the form that the workflow asks for.") from error
        return
        yield  # makes this an async generator; the step has nothing to show
