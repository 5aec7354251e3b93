"""Tools that workflows may use: plain functions, registered by name.

    @register_tool("weather")
    def create_weather(config):
        async def weather(city: str, *, context: ToolContext) -> str:
            "The weather in a city."
        return weather

The function's annotations are its schema and its docstring is what a model reads. A parameter `context` is given by us
and hidden from the model: whose run it is. That is all the rights that a tool gets, so look things up through it.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from kernel.errors import ChainError
from llm import values
from llm.errors import ToolFailed
from llm.registry import tools
from llm.state import WorkflowState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Whose run calls the tool."""

    workspace_id: UUID
    user_id: int | None
    session_id: UUID | None
    run_id: UUID

    @classmethod
    def of(cls, state: WorkflowState) -> "ToolContext":
        inputs = state.inputs
        return cls(inputs.workspace_id, inputs.user_id, inputs.session_id, state.run.run_id)


@dataclass(frozen=True, slots=True)
class Tool:
    """A registered tool, ready to be called."""

    name: str
    description: str
    #: What it takes, without the context.
    arguments: type[BaseModel]
    function: Callable[..., Any]
    takes_context: bool

    async def call(self, arguments: Mapping[str, Any], context: ToolContext, *, seconds: float) -> Any:
        """Its result as plain JSON. Raises ToolFailed, and any ChainError of the tool's own; a stop stops it."""
        try:
            given = dict(self.arguments.model_validate(arguments))
        except ValidationError as error:
            raise ToolFailed(f"The tool {self.name!r} was called with arguments that it does not take.") from error
        if self.takes_context:
            given["context"] = context
        try:
            async with asyncio.timeout(seconds):
                if inspect.iscoroutinefunction(self.function):
                    made = await self.function(**given)
                else:
                    # It may block: not in the loop that serves every socket.
                    made = await asyncio.to_thread(self.function, **given)
            return values.plain(made)
        except ChainError:
            raise
        except TimeoutError as error:
            raise ToolFailed(f"The tool {self.name!r} took longer than {seconds:g} s.") from error
        except Exception as error:
            logger.warning("action=tool_failed tool=%s error=%s", self.name, type(error).__name__)
            raise ToolFailed(f"The tool {self.name!r} failed.") from error


def build(name: str, options: Mapping[str, Any] | None = None) -> Tool:
    """The registered tool. Raises Misconfigured, and ValueError for what is no tool."""
    function = tools.get(name)(dict(options or {}))
    if not callable(function) or not (description := inspect.getdoc(function)):
        raise ValueError(f"the tool {name!r} is no function with a docstring, which is what a model reads of it")
    fields: dict[str, Any] = {}
    parameters = inspect.signature(function, eval_str=True).parameters
    for parameter in parameters.values():
        if parameter.name == "context":
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ValueError(f"the tool {name!r} needs parameters with names, not {parameter}")
        kind = Any if parameter.annotation is parameter.empty else parameter.annotation
        fields[parameter.name] = (kind, Field() if parameter.default is parameter.empty else parameter.default)
    arguments = create_model(f"{name}_arguments", __config__=ConfigDict(extra="forbid"), **fields)
    return Tool(name, description, arguments, function, "context" in parameters)
