"""The `workflow` step: run another of the workspace's workflows as a part of this one."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from llm import values
from llm.deadline import within
from llm.errors import WorkflowInvalid
from llm.events import Event
from llm.running import run_steps
from llm.state import WorkflowState
from llm.steps.base import Name, Step
from llm.values import Argument

#: Workflows within workflows.
MAX_DEPTH = 5


class WorkflowStep(Step):
    """What it comes to is this step's text and output. Its validators and cache are the outer one's; of the two log
    policies the stricter holds for the whole run from then on."""

    slow: ClassVar[bool] = True

    type: Literal["workflow"] = "workflow"
    name: str = Field(min_length=1, max_length=255)
    #: Null: the active one.
    version: int | None = Field(default=None, ge=1)
    #: Its variables, and its `question` if that is another one.
    inputs: dict[str, Argument] = Field(default_factory=dict, max_length=50)
    #: A variable that its value is kept in.
    output: Name | None = None

    @property
    @override
    def speaks(self) -> bool:
        return True

    @override
    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        # The workflows' own module imports the steps' grammar, which imports this one.
        from llm import workflows  # noqa: PLC0415

        around = self._around(state)
        row = await state.run.configuration.workflow(self.name, self.version)
        if row is None:
            which = "no active one" if self.version is None else f"no version {self.version}"
            raise WorkflowInvalid(f"{state.path}.name: of the workflow {self.name!r} there is {which}.")
        # In a thread: the first time it takes a while, and this loop serves others.
        compiled = await asyncio.to_thread(
            workflows.compile_workflow, row.definition, models=state.run.configuration.models
        )
        if compiled.options["log_content"]:
            state.run.journal.keep(compiled.options["log_content"])
        inner = self._begin(state, around)
        events = run_steps(compiled.steps, inner, path=f"{state.path}.steps", shows=state.shows)
        seconds = compiled.options["timeout"]
        async with aclosing(events if seconds is None else within(seconds, events)) as bounded:
            async for event in bounded:
                yield event
        state.text, state.output, state.asked = inner.text, inner.output, inner.asked
        if self.output is not None:
            state.variables[self.output] = values.plain(values.result(inner))

    def _around(self, state: WorkflowState) -> tuple[str, ...]:
        outermost = () if state.run.workflow is None else (state.run.workflow.name,)
        around = state.within or outermost
        if self.name in around:
            way = " \N{RIGHTWARDS ARROW} ".join((*around, self.name))
            raise WorkflowInvalid(f"{state.path}.name: the workflow calls itself ({way}).")
        if len(around) - len(outermost) >= MAX_DEPTH:
            raise WorkflowInvalid(f"{state.path}.name: workflows may call others {MAX_DEPTH} deep, no more.")
        return (*around, self.name)

    def _begin(self, state: WorkflowState, around: tuple[str, ...]) -> WorkflowState:
        given = values.resolve(state, self.inputs)
        inner = state.fork()
        inner.question = values.as_text(given.pop("question", state.question))
        inner.variables, inner.within = given, around
        inner.messages, inner.text, inner.output, inner.prompt = [], "", None, None
        return inner
