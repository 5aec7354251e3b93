"""The `parallel` step: several lists of steps at once, each on a copy of the state."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from llm import values
from llm.events import Event
from llm.merge import merge
from llm.running import run_steps
from llm.state import WorkflowState
from llm.steps.base import AnyStep, HoldingStep, Name, Step

MAX_BRANCHES = 8


class ParallelStep(HoldingStep):
    """What each branch comes to is a variable of the branch's name. If one fails, so does the step."""

    slow: ClassVar[bool] = True
    aside: ClassVar[bool] = True

    type: Literal["parallel"] = "parallel"
    branches: dict[Name, list[AnyStep]] = Field(min_length=1, max_length=MAX_BRANCHES)

    @override
    def inner(self) -> Mapping[str, Sequence[Step]]:
        return {f".branches.{name}": steps for name, steps in self.branches.items()}

    @override
    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        path = state.path
        forks = {name: state.fork() for name in self.branches}
        producers = [
            run_steps(steps, forks[name], path=f"{path}.branches.{name}", shows=False)
            for name, steps in self.branches.items()
        ]
        async with aclosing(merge(producers, at_once=len(producers))) as events:
            async for event in events:
                yield event
        state.output = values.plain({name: values.result(fork) for name, fork in forks.items()})
        state.variables |= state.output
