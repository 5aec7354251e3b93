"""The `tool` step: call one registered tool with values of the run."""

from collections.abc import AsyncGenerator
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from typing_extensions import override

from kernel.errors import Misconfigured
from llm import tools, values
from llm.events import Event
from llm.state import WorkflowState
from llm.steps.base import Name, Step
from llm.tools import Tool, ToolContext
from llm.values import Argument


class ToolStep(Step):
    """`tool(**arguments)`; an argument is a constant or `{"from": "variables.x"}`."""

    slow: ClassVar[bool] = True

    type: Literal["tool"] = "tool"
    tool: str
    arguments: dict[str, Argument] = Field(default_factory=dict, max_length=50)
    #: What the tool's factory takes.
    options: dict[str, Any] = Field(default_factory=dict)
    #: In seconds.
    timeout: float = Field(default=30.0, gt=0, le=600)
    #: A variable for the result; null: it is the output of the steps so far.
    output: Name | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        try:
            known = self._tool.arguments.model_fields
        except Misconfigured as error:
            raise ValueError(f".tool: {error.message}") from error
        except (TypeError, LookupError) as error:
            raise ValueError(f".options: the tool {self.tool!r} can't be made with them") from error
        if unknown := sorted(set(self.arguments) - set(known)):
            raise ValueError(f".arguments.{unknown[0][:60]}: {self.tool!r} takes {', '.join(known) or 'nothing'}")
        if missing := [name for name, one in known.items() if one.is_required() and name not in self.arguments]:
            raise ValueError(f".arguments.{missing[0]}: {self.tool!r} needs it")
        return self

    @cached_property
    def _tool(self) -> Tool:
        return tools.build(self.tool, self.options)

    @override
    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        arguments = values.resolve(state, self.arguments)
        made = await self._tool.call(arguments, ToolContext.of(state), seconds=self.timeout)
        if self.output is None:
            state.output = made
        else:
            state.variables[self.output] = made
        return
        yield  # makes this an async generator; that it began and ended is told by the run
