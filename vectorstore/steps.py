"""The `retrieve` step of a workflow: passages for the question, from the caller's workspace alone."""

from collections.abc import AsyncGenerator
from typing import ClassVar, Literal

from pydantic import Field

from llm import events
from llm.state import WorkflowState
from llm.steps.base import Step
from vectorstore.manager import MAX_K, VectorStoreManager

#: Measured with wordllama on the sample documents: 25 greetings and questions about other things reach at most 0.20,
#: 15 of 18 questions that the documents answer at least 0.34 (the others: a bare "how much is it?", another language, a
#: word out of a table). Other embedding models have other scales: set `min_score` in the step with them.
MIN_SCORE = 0.25


class RetrieveStep(Step):
    """`k` passages of a collection, those below `min_score` left out, so that a greeting brings no sources."""

    type: Literal["retrieve"] = "retrieve"
    slow: ClassVar[bool] = True

    k: int = Field(default=4, ge=1, le=MAX_K)
    collection: str | None = None
    min_score: float = Field(default=MIN_SCORE, ge=-1, le=1)

    async def run(self, state: WorkflowState) -> AsyncGenerator[events.Event, None]:
        manager = VectorStoreManager(state.inputs.workspace_id)
        hits = await manager.search(state.question, k=self.k, collection=self.collection, min_score=self.min_score)
        state.passages = [hit.as_source(n) for n, hit in enumerate(hits, start=1)]
        if state.passages:
            yield events.Sources(tuple(state.passages))
        yield events.Step("retrieve", "finished", {"hits": len(state.passages)})
