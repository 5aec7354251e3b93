"""Running a workflow to its end, and what came of it."""

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from llm.events import Event, ModelStarted, Output, Step, Text
from llm.state import RunContext, WorkflowInput
from llm.workflows import stream


@dataclass
class Ran:
    run: RunContext
    events: list[Event] = field(default_factory=list)
    error: Exception | None = None

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Text))

    @property
    def value(self) -> Any:
        assert self.error is None, self.error
        last = self.events[-1]
        assert isinstance(last, Output)
        return last.value

    @property
    def steps(self) -> list[tuple[str, str, str]]:
        """Type, state and path of each step that was told of."""
        return [(event.name, event.state, event.detail["path"]) for event in self.events if isinstance(event, Step)]

    @property
    def asked(self) -> list[str]:
        """What each model call ended with asking."""
        return [event.messages[-1]["content"] for event in self.events if isinstance(event, ModelStarted)]


def begin(run: RunContext | None = None) -> Ran:
    return Ran(run or RunContext.unlogged(uuid4()))


async def ran(definition: Any, question: str = "why?", *, into: Ran | None = None, **variables: Any) -> Ran:
    """Run it to its end, or to its failure."""
    came = into or begin()
    inputs = WorkflowInput(
        workspace_id=came.run.configuration.workspace_id,
        user_id=None,
        session_id=None,
        question=question,
        variables=variables,
    )
    try:
        async with aclosing(stream(definition, inputs, run=came.run)) as events:
            async for event in events:
                came.events.append(event)
    except Exception as error:  # noqa: BLE001  the outcome is what is tested
        came.error = error
    return came
