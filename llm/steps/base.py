"""What a workflow step is: validated options and a `run`."""

from collections.abc import AsyncIterator

from pydantic import BaseModel, ConfigDict

from llm.events import Event
from llm.state import WorkflowState


class Step(BaseModel):
    """A step's options are its fields; an unknown one is refused. Steps hold no state: one object serves all runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: str

    def run(self, state: WorkflowState) -> AsyncIterator[Event]:
        """Do the step: read and write `state`, yield what people should see. An async generator."""
        raise NotImplementedError
