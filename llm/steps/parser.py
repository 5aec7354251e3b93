"""The `parser` step: make a value of the whole answer, if need be with the model's help."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cached_property
from typing import Any, Literal, Self

from langchain_core.messages import AIMessage, HumanMessage
from pydantic import Field, model_validator
from typing_extensions import override

from llm import calls, values
from llm.errors import OutputInvalid
from llm.events import Event, Text
from llm.parsers import Parser
from llm.registry import parsers
from llm.state import WorkflowState
from llm.steps.base import Name, Step

#: The names that LangChain's parsers go by.
_ALIASES = {
    "StrOutputParser": "str",
    "JsonOutputParser": "json",
    "PydanticOutputParser": "pydantic",
    "ListOutputParser": "list",
    "CommaSeparatedListOutputParser": "list",
    "RegexParser": "regex",
}
_MEND = "Your answer can't be used: {fault}.\nAnswer again, with nothing but the corrected answer."
_MAX_FAULT = 500


class ParserStep(Step):
    type: Literal["parser"] = "parser"
    #: A registered parser and what it takes.
    parser: str = "str"
    options: dict[str, Any] = Field(default_factory=dict)
    #: How often the model is asked to mend an answer that is refused.
    repair: int = Field(default=0, ge=0, le=2)
    #: A variable that the value is kept in, too.
    output: Name | None = None
    #: Other names for `parser` and `options`.
    parser_type: str | None = None
    parser_args: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        options = dict(given)
        for name, other in (("parser", "parser_type"), ("options", "parser_args")):
            if options.get(other) is not None:
                if name in options:
                    raise ValueError(f".{other}: the same as {name!r}; give one of them")
                options[name] = options.pop(other)
        if isinstance(options.get("parser"), str):
            options["parser"] = _ALIASES.get(options["parser"], options["parser"])
        return options

    @model_validator(mode="after")
    def _build(self) -> Self:
        try:
            _ = self._parser
        except (TypeError, LookupError) as error:
            raise ValueError(f".options: the parser {self.parser!r} can't be made with them") from error
        return self

    @cached_property
    def _parser(self) -> Parser:
        built: Parser = parsers.get(self.parser)(self.options)
        return built

    @property
    @override
    def holds_back(self) -> bool:
        return self.repair > 0

    @override
    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        for left in range(self.repair, -1, -1):
            try:
                state.output = await asyncio.to_thread(self._value, state.text)
                break
            except (ValueError, RecursionError) as error:
                if not left or state.asked is None:
                    raise OutputInvalid from error
                fault = str(error)[:_MAX_FAULT]
            async with aclosing(self._mend(state, fault)) as events:
                async for event in events:
                    yield event
        if self.output is not None:
            state.variables[self.output] = state.output

    def _value(self, text: str) -> Any:
        """In a thread: a long answer and a large schema or pattern take their time."""
        return values.plain(self._parser.parse(text))

    async def _mend(self, state: WorkflowState, fault: str) -> AsyncGenerator[Event, None]:
        """Have the last call's model say its answer anew."""
        asked = state.asked
        assert asked is not None
        draft = asked.draft.around(tail=[AIMessage(state.text), HumanMessage(_MEND.format(fault=fault))])
        pieces: list[str] = []
        async with aclosing(calls.stream_answer(state, asked.model, draft, options=asked.options)) as events:
            async for event in events:
                if event.__class__ is Text:
                    pieces.append(event.text)
                else:
                    yield event
        state.text = "".join(pieces)
