"""Running a list of steps: in order, each told of once when it has ended, and the right one's text shown.

Which text people see: that of the last step of the list that speaks (a model's, or one that holds such), unless a later
one may have it said anew. A list inside a step is shown as that step is. So what is shown is part of the answer.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any, cast

from llm.events import Event, Text
from llm.events import Step as Progress
from llm.state import WorkflowState
from llm.steps.base import Step

#: Seconds of steps after which others have their turn.
_LONG = 0.005


async def run_steps(
    steps: Sequence[Step], state: WorkflowState, *, path: str, shows: bool
) -> AsyncGenerator[Event, None]:
    """The events of `steps`, which read and write `state`. `path` leads to the list, as in "steps[1].cases[0].steps".

    Each step leaves one entry in the run's trace, however it ended. Raises what a step raises.
    """
    answering, others_ran_at = _answering(steps) if shows else -1, monotonic()
    for index, step in enumerate(steps):
        state.path, state.shows = f"{path}[{index}]", index == answering
        told = _Told(step, state)
        if step.slow:
            yield told.started()
        try:
            async with aclosing(cast("AsyncGenerator[Event, None]", step.run(state))) as events:
                async for event in events:
                    if event.__class__ is Text or told.lets_through(event):
                        yield event
        except BaseException as error:
            failed = isinstance(error, Exception)
            ended = told.ended("failed" if failed else "stopped")
            if failed:
                yield ended
            raise
        yield told.ended("finished")
        if monotonic() - others_ran_at > _LONG:
            # Steps that wait for nothing would follow each other without letting any other work of the loop in.
            await asyncio.sleep(0)
            others_ran_at = monotonic()


def _answering(steps: Sequence[Step]) -> int:
    """The index of the step whose text is shown; -1 if none is."""
    for index in range(len(steps) - 1, -1, -1):
        if steps[index].holds_back and not steps[index].speaks:
            return -1
        if steps[index].speaks:
            return index
    return -1


class _Told:
    """What people are told of one step: that it started, if it takes time, and how it ended."""

    def __init__(self, step: Step, state: WorkflowState) -> None:
        self._type = step.type
        self._place = {"path": state.path}
        self._trace = state.run.trace
        self._began = monotonic()
        self._told_start = False
        self._detail: dict[str, Any] = {}

    def started(self) -> Progress:
        self._told_start = True
        return Progress(self._type, "started", dict(self._place))

    def lets_through(self, event: Event) -> bool:
        """Whether an event goes on as it is. A step's own word of its start and end becomes a part of ours."""
        if not isinstance(event, Progress) or event.name != self._type or "path" in event.detail:
            return True
        if event.state in ("finished", "failed"):
            self._detail |= event.detail
            return False
        return event.state != "started" or not self._told_start

    def ended(self, state: str) -> Progress:
        took = {"ms": round((monotonic() - self._began) * 1000)}
        self._trace.append({**self._place, "type": self._type, "state": state, **took})
        shown = {**self._place, **took, **self._detail}
        return Progress(self._type, "finished" if state == "finished" else "failed", shown)
