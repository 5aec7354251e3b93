"""The `transform` step: make a value of others, by a registered function."""

import inspect
from collections.abc import AsyncGenerator
from typing import Literal, Self

from pydantic import Field, model_validator
from typing_extensions import override

from llm import values
from llm.errors import OutputInvalid
from llm.events import Event
from llm.registry import transforms
from llm.state import WorkflowState
from llm.steps.base import Name, Step
from llm.values import Argument


class TransformStep(Step):
    """`function(**arguments)`; an argument is a constant or `{"from": "variables.x"}`."""

    type: Literal["transform"] = "transform"
    function: str
    arguments: dict[str, Argument] = Field(default_factory=dict, max_length=50)
    #: A variable for the value; null: it is the output of the steps so far.
    output: Name | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.function not in transforms.names():
            known = ", ".join(transforms.names())
            raise ValueError(f".function: there is no transform {self.function[:60]!r}; known: {known}")
        try:
            inspect.signature(transforms.get(self.function)).bind(**self.arguments)
        except TypeError as error:
            raise ValueError(f".arguments: {self.function!r} has {error}") from error
        return self

    @override
    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        arguments = values.resolve(state, self.arguments)
        try:
            made = transforms.get(self.function)(**arguments)
            value = values.plain(await made if inspect.isawaitable(made) else made)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            # Not the error's text: it may quote what the model said.
            raise OutputInvalid(f"{state.path}: the transform {self.function!r} can't use its arguments.") from error
        if self.output is None:
            state.output = value
        else:
            state.variables[self.output] = value
        return
        yield  # makes this an async generator; the step has nothing to show
