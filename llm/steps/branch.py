"""The `branch` step: go on with the first list of steps whose condition holds."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import Literal

from pydantic import ConfigDict, Field
from typing_extensions import override

from llm.conditions import Condition
from llm.events import Event
from llm.running import run_steps
from llm.state import WorkflowState
from llm.steps.base import AnyStep, HoldingStep, Holds, Step


class Case(Holds):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    when: Condition
    steps: list[AnyStep] = Field(max_length=50)


class BranchStep(HoldingStep):
    """The first of `cases` that holds, else `default`. The steps work on the run's own state."""

    type: Literal["branch"] = "branch"
    cases: list[Case] = Field(min_length=1, max_length=20)
    default: list[AnyStep] = Field(default_factory=list, max_length=50)

    @override
    def inner(self) -> Mapping[str, Sequence[Step]]:
        cases = {f".cases[{index}].steps": case.steps for index, case in enumerate(self.cases)}
        return {**cases, ".default": self.default}

    @cached_property
    def _searches(self) -> bool:
        return any(case.when.searches for case in self.cases)

    def _chosen(self, state: WorkflowState) -> tuple[str, Sequence[Step]]:
        for index, case in enumerate(self.cases):
            if case.when.holds(state):
                return f".cases[{index}].steps", case.steps
        return ".default", self.default

    @override
    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        if self._searches:
            place, steps = await asyncio.to_thread(self._chosen, state)
        else:
            place, steps = self._chosen(state)
        async with aclosing(run_steps(steps, state, path=f"{state.path}{place}", shows=state.shows)) as events:
            async for event in events:
                yield event
