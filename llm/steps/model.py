"""What every step that calls a model takes: which model, with what options, and where its text goes."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator
from typing_extensions import override

from llm import schemas, values
from llm.state import WorkflowState
from llm.steps.base import Name, Step


class ModelStep(Step):
    slow: ClassVar[bool] = True

    #: An alias of LLM["MODELS"] or LLM["ROUTES"], or one of the workspace's; empty: the default one.
    model: str = Field(default="", max_length=255)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: list[str] | None = Field(default=None, min_length=1, max_length=8)
    seed: int | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None
    #: A JSON schema that the provider is asked to keep the answer to. Whether it did is the parser's to say.
    json_schema: dict[str, Any] | None = None
    #: Whether people see the text while it comes; null: if it is the answer.
    show: bool | None = None
    #: A variable that the text is kept in.
    output: Name | None = None

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            schemas.validator(schema)
        return schema

    @property
    @override
    def speaks(self) -> bool:
        return True

    @override
    def models(self) -> Iterator[tuple[str, str]]:
        yield ".model", self.model

    def options(self) -> dict[str, Any]:
        """This call's own options, beside those of the alias."""
        given = {name: getattr(self, name) for name in _OPTIONS}
        return {name: value for name, value in given.items() if value is not None}

    def shown_in(self, state: WorkflowState) -> bool:
        return state.shows if self.show is None else self.show

    def keep(self, state: WorkflowState, text: str) -> None:
        """The step's text, whole or as far as it came."""
        state.text, state.output = text, None
        if self.output is not None:
            state.variables[self.output] = values.plain(text)


_OPTIONS = (
    "temperature", "top_p", "max_tokens", "stop", "seed", "presence_penalty", "frequency_penalty", "reasoning_effort",
    "json_schema",
)  # fmt: skip
