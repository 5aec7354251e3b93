"""The `map` step: the same steps for each item of a list."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from kernel.errors import TooLarge
from llm import values
from llm.errors import WorkflowInvalid
from llm.events import Event
from llm.merge import merge
from llm.running import run_steps
from llm.state import WorkflowState
from llm.steps.base import AnyStep, HoldingStep, Name, Step
from llm.values import ValuePath

MAX_ITEMS = 50
MAX_AT_ONCE = 8


class MapStep(HoldingStep):
    """`steps` run on a copy of the state for each item of the list `over`; what they come to is the list `output`."""

    slow: ClassVar[bool] = True
    aside: ClassVar[bool] = True

    type: Literal["map"] = "map"
    over: ValuePath
    #: The variable that holds the item; the item's place is `<item>_index`.
    item: Name = "item"
    steps: list[AnyStep] = Field(min_length=1, max_length=50)
    concurrency: int = Field(default=4, ge=1, le=MAX_AT_ONCE)
    output: Name = "results"

    @override
    def inner(self) -> Mapping[str, Sequence[Step]]:
        return {".steps": self.steps}

    @override
    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        items, path = values.read(state, self.over), state.path
        if not isinstance(items, list):
            raise WorkflowInvalid(f"{path}.over: {self.over!r} is no list when this step runs.")
        if len(items) > MAX_ITEMS:
            raise TooLarge(f"{path}.over: a map takes {MAX_ITEMS} items, this list has {len(items)}.")
        forks = [state.fork() for _ in items]
        for index, (fork, item) in enumerate(zip(forks, items, strict=True)):
            fork.variables |= {self.item: item, f"{self.item}_index": index}
        producers = [
            run_steps(self.steps, fork, path=f"{path}.items[{index}].steps", shows=False)
            for index, fork in enumerate(forks)
        ]
        async with aclosing(merge(producers, at_once=self.concurrency)) as events:
            async for event in events:
                yield event
        state.output = values.plain([values.result(fork) for fork in forks])
        state.variables[self.output] = state.output
