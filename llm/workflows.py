"""Workflows: steps as data, compiled once and run as a stream of events.

    [{"type": "memory"}, {"type": "retrieve", "k": 2}, {"type": "prompt"}, {"type": "llm", "model": "fast"}]

Only registered step types exist, and each validates its own options: nothing in a definition is ever imported or run.
"""

from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from django.core.signals import setting_changed

from kernel.caches import Cache
from kernel.conf import config
from llm import answer_cache, citations, patterns, registry, values
from llm.around import around
from llm.citations import Marks
from llm.deadline import within
from llm.errors import WorkflowInvalid
from llm.events import Event, Output, Sources, Text
from llm.grammar import grammar, json_schema
from llm.running import run_steps
from llm.state import RunContext, WorkflowInput, WorkflowState
from llm.steps.base import Step

__all__ = [
    "DEFAULT_WORKFLOW", "Compiled", "WorkflowInput", "WorkflowState", "compile_workflow", "json_schema", "stream",
]  # fmt: skip

MAX_STEPS = 50
#: Steps within steps.
MAX_DEPTH = 5
#: Of a definition as JSON.
MAX_BYTES = 262_144
MAX_NESTING = 64
DEFAULT_WORKFLOW: list[dict[str, Any]] = [
    {"type": "memory"},
    {"type": "retrieve", "k": 2},
    {"type": "prompt"},
    {"type": "llm"},
]

Definition = Sequence[Mapping[str, Any]] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A definition that has been checked; it serves all runs."""

    steps: tuple[Step, ...]
    #: `timeout`, `cache`, `input_validators`, `output_validators`, `log_content`.
    options: Mapping[str, Any]
    #: Each model that a step names, with the path to it.
    models: tuple[tuple[str, str], ...]

    def check_models(self, known: Collection[str]) -> None:
        """Raises WorkflowInvalid if a step names a model that is neither in the setting nor among `known`."""
        llm = config().llm
        for path, alias in self.models:
            if alias and alias not in llm.models and alias not in llm.routes and alias not in known:
                names = ", ".join(sorted({*llm.models, *llm.routes, *known}))
                raise WorkflowInvalid(f"{path}: There is no model {alias[:60]!r}; known: {names}.")


def stream(
    definition: Definition, inputs: WorkflowInput, *, run: RunContext | None = None
) -> AsyncGenerator[Event, None]:
    """Run the steps in order; `run` says what holds and keeps account, without one the run leaves no rows.

    Raises WorkflowInvalid at once; the events raise WorkflowTimeout, and what a step raises.
    """
    run = run or RunContext.unlogged(inputs.workspace_id)
    compiled = compile_workflow(definition, models=run.configuration.models)
    run.cache = compiled.options["cache"]
    limit = config().llm.workflow_timeout
    events = around(inputs, run, compiled.options, partial(_run, compiled, run))
    # Answers are kept once the validators around the run have let it pass.
    keep = partial(answer_cache.keep, run)
    return within(min(compiled.options["timeout"] or limit, limit), events, then=keep)


async def _run(compiled: Compiled, run: RunContext, inputs: WorkflowInput) -> AsyncGenerator[Event, None]:
    state = WorkflowState.begin(inputs, run)
    marks: Marks | None = None
    async with aclosing(run_steps(compiled.steps, state, path="steps", shows=True)) as events:
        async for event in events:
            if marks is not None and event.__class__ is Text:
                if shown := marks.feed(event.text):
                    yield Text(shown)
                continue
            if marks is not None and (rest := marks.rest()):
                yield Text(rest)
            if event.__class__ is Sources:
                marks = Marks(event.hits)
            yield event
    if marks is not None and (rest := marks.rest()):
        yield Text(rest)
    value = values.plain(values.result(state))
    if marks is not None and isinstance(value, str):
        value = citations.resolved(value, state.passages)
    # Nobody has seen a text, so what it comes to is the answer.
    if not run.shown and (text := values.as_text(value)):
        run.shown = True
        yield Text(text)
    yield Output(value)


def compile_workflow(definition: Definition, *, models: Collection[str] = ()) -> Compiled:
    """Validate a definition. `models` are known beside those of the setting: a workspace's own.

    Raises WorkflowInvalid with the path to the fault ("steps[2].model: …").
    """
    compiled = _compiled(definition)
    compiled.check_models(models)
    return compiled


_cache: Cache[tuple[bytes, tuple[int, ...]], Compiled] = Cache("compiled_workflows", 256)


def _compiled(definition: Definition) -> Compiled:
    if not isinstance(definition, list | tuple | Mapping):
        raise WorkflowInvalid("steps: a workflow is a list of steps, or an object with 'steps'.")
    try:
        encoded = msgspec.json.encode(definition)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise WorkflowInvalid("steps: a workflow is plain JSON.") from error
    key = (encoded, _revisions())
    return _cache.get(key) or _cache.put(key, _compile(encoded))


def _revisions() -> tuple[int, ...]:
    """What steps build their parts from when they are compiled."""
    parts = (
        registry.workflow_steps, registry.parsers, registry.transforms, registry.tools, registry.prompt_renderers,
        registry.validators,
    )  # fmt: skip
    return tuple(part.revision for part in parts)


def _compile(encoded: bytes) -> Compiled:
    if len(encoded) > MAX_BYTES:
        raise WorkflowInvalid(f"steps: a workflow may have {MAX_BYTES} bytes as JSON, this one has {len(encoded)}.")
    raw = msgspec.json.decode(encoded)
    _check_nesting(raw)
    if isinstance(raw, list):
        raw = {"steps": raw}
    if isinstance(raw.get("steps"), list):
        _check_count(len(raw["steps"]))
    with patterns.bounded():
        read = grammar().read(raw)
    _check_count(sum(1 for _ in _walk(read.steps, "steps", 1, aside=False)))
    models = tuple(
        (f"{path}{option}", alias)
        for path, step in _walk(read.steps, "steps", 1, aside=False)
        for option, alias in step.models()
    )
    return Compiled(tuple(read.steps), read.model_dump(exclude={"steps", "schema_version"}), models)


def _check_count(count: int) -> None:
    if not 0 < count <= MAX_STEPS:
        raise WorkflowInvalid(f"steps: a workflow has 1 to {MAX_STEPS} steps, this one has {count}.")


def _check_nesting(raw: Any) -> None:
    """Before anything that goes down into it by recursion."""
    level, depth = [raw], 0
    while level:
        depth += 1
        if depth > MAX_NESTING:
            raise WorkflowInvalid(f"steps: a workflow is nested {MAX_NESTING} deep at most, as JSON.")
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]


def _walk(steps: Sequence[Step], path: str, depth: int, *, aside: bool) -> Iterator[tuple[str, Step]]:
    """All steps with their paths, outer ones first."""
    if depth > MAX_DEPTH:
        raise WorkflowInvalid(f"{path}: steps may hold steps {MAX_DEPTH} levels deep, no more.")
    for index, step in enumerate(steps):
        place = f"{path}[{index}]"
        if aside and getattr(step, "show", None):
            raise WorkflowInvalid(f"{place}.show: of steps that run side by side nobody can read the text at once.")
        yield place, step
        for name, inner in step.inner().items():
            yield from _walk(inner, f"{place}{name}", depth + 1, aside=aside or step.aside)


def _forget(*, setting: str, **_: object) -> None:
    if setting == "DJANGO_CHAIN":  # steps have checked their options against it
        _cache.clear()


setting_changed.connect(_forget)
