"""Workflows: steps as data, compiled once and run as a stream of events.

    [{"type": "memory"}, {"type": "retrieve", "k": 2}, {"type": "prompt"}, {"type": "llm", "model": "fast"}]

Only registered step types exist, and each validates its own options: nothing in a definition is ever imported or run.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache, partial
from typing import Any, Protocol, cast

import msgspec
from django.core.signals import setting_changed
from pydantic import ValidationError

from kernel.errors import Misconfigured
from llm.around import around
from llm.errors import WorkflowInvalid
from llm.events import Event
from llm.registry import workflow_steps
from llm.state import RunContext, WorkflowInput, WorkflowState
from llm.steps.base import Step

__all__ = ["DEFAULT_WORKFLOW", "Runs", "WorkflowInput", "WorkflowState", "compile_workflow", "stream"]

MAX_STEPS = 50
DEFAULT_WORKFLOW: list[dict[str, Any]] = [
    {"type": "memory"},
    {"type": "retrieve", "k": 2},
    {"type": "prompt"},
    {"type": "llm"},
]


class Runs(Protocol):
    """What a step's factory returns: it does its part of a run."""

    def run(self, state: WorkflowState) -> AsyncIterator[Event]: ...


async def stream(
    definition: Sequence[Mapping[str, Any]], inputs: WorkflowInput, *, run: RunContext | None = None
) -> AsyncGenerator[Event, None]:
    """Run the steps in order; `run` says what holds and keeps account, without one the run leaves no rows.

    Raises WorkflowInvalid before the first event, and what a step raises.
    """
    steps = compile_workflow(definition)
    run = run or RunContext.unlogged(inputs.workspace_id)
    async with aclosing(around(inputs, run, {}, partial(_run, steps, run))) as events:
        async for event in events:
            yield event


async def _run(steps: Sequence[Runs], run: RunContext, inputs: WorkflowInput) -> AsyncGenerator[Event, None]:
    state = WorkflowState.begin(inputs, run)
    for step in steps:
        async with aclosing(cast("AsyncGenerator[Event, None]", step.run(state))) as events:
            async for event in events:
                yield event


def compile_workflow(definition: Sequence[Mapping[str, Any]]) -> tuple[Runs, ...]:
    """Validate a definition. Raises WorkflowInvalid with the path to the fault ("steps[2].model: …")."""
    if not isinstance(definition, list | tuple):
        raise WorkflowInvalid("steps: a workflow is a list of steps.")
    if not 0 < len(definition) <= MAX_STEPS:
        raise WorkflowInvalid(f"steps: a workflow has 1 to {MAX_STEPS} steps, this one has {len(definition)}.")
    try:
        encoded = msgspec.json.encode(definition)
    except (TypeError, ValueError, RecursionError) as error:
        raise WorkflowInvalid("steps: a workflow is plain JSON.") from error
    return _compiled(encoded)


@lru_cache(maxsize=256)
def _compiled(encoded: bytes) -> tuple[Runs, ...]:
    return tuple(_step(f"steps[{index}]", options) for index, options in enumerate(msgspec.json.decode(encoded)))


def _step(path: str, options: Any) -> Runs:
    if not isinstance(options, dict) or not isinstance(options.get("type"), str):
        raise WorkflowInvalid(f"{path}.type: a step is an object with a 'type'; known: {_known()}.")
    if options["type"] not in workflow_steps.names():
        raise WorkflowInvalid(f"{path}.type: there is no step {options['type']!r}; known: {_known()}.")
    try:
        factory: Any = workflow_steps.get(options["type"])
        if isinstance(factory, type) and issubclass(factory, Step):
            return factory.model_validate(options)
        built: object = factory({name: value for name, value in options.items() if name != "type"})
    except ValidationError as error:
        raise WorkflowInvalid(_explained(path, error)) from error
    except Misconfigured as error:
        raise WorkflowInvalid(f"{path}: {error.message}") from error
    except (TypeError, ValueError) as error:
        raise WorkflowInvalid(f"{path}: {error}.") from error
    if not hasattr(built, "run"):
        raise WorkflowInvalid(f"{path}.type: the factory of {options['type']!r} returned an object without 'run'.")
    return cast("Runs", built)


def _explained(path: str, error: ValidationError) -> str:
    """The first fault, with its path as one would write it in Python."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    # A step's own check of a list begins with the index at fault, which belongs to the path.
    return f"{path}{where}{'' if message.startswith('[') else ': '}{message}."


def _known() -> str:
    return ", ".join(workflow_steps.names())


def _forget(*, setting: str, **_: object) -> None:
    if setting == "DJANGO_CHAIN":  # the steps have checked their model aliases against it
        _compiled.cache_clear()


setting_changed.connect(_forget)
