"""A step's way to a model: the response cache if the workflow has one, then the router."""

from collections.abc import AsyncGenerator, Sequence

from langchain_core.messages import BaseMessage

from llm.events import Event
from llm.model_call import stream_model
from llm.state import WorkflowState


def stream_answer(state: WorkflowState, model: str, messages: Sequence[BaseMessage]) -> AsyncGenerator[Event, None]:
    """Ask the model or route `model` (empty: the default) on behalf of a step: ModelStarted, Text…, ModelFinished."""
    return stream_model(model, messages, run=state.run, prompt=state.prompt)
