"""REST for search: the passages of a collection that answer a question."""

from typing import Annotated, Any, Literal
from uuid import UUID

from django.http import HttpRequest
from ninja import Router, Schema
from pydantic import AwareDatetime, BaseModel, Field

from accounts.rest import caller_of
from kernel import database
from kernel.conf import config as settings
from vectorstore.manager import VectorStoreManager
from vectorstore.rest import rates
from vectorstore.rest.places import Line, scope_of
from vectorstore.searching import MAX_DOCUMENTS, MAX_K, MAX_NEIGHBOURS
from vectorstore.values import SearchRequest

router = Router(tags=["documents"])


class SearchIn(BaseModel, extra="forbid"):
    """`collection`: its name or its id, without it the default one. `where`: a filter over metadata.

    `mmr`: 1 is relevance alone, towards 0 hits resemble each other less. `decay`: a half-life in days. `neighbours`:
    passages around each hit.
    """

    query: Line = Field(min_length=1, max_length=2000)
    k: int = Field(4, ge=1, le=MAX_K)
    mode: Literal["vector", "text", "hybrid"] = "vector"
    #: An id comes as text too: it is tried as one first.
    collection: UUID | Annotated[Line, Field(min_length=1, max_length=200)] | None = Field(
        None, union_mode="left_to_right"
    )
    where: dict[str, Any] | None = None
    documents: list[UUID] = Field([], max_length=MAX_DOCUMENTS)
    min_score: float | None = Field(None, allow_inf_nan=False)
    mmr: float | None = Field(None, ge=0, le=1)
    decay: float | None = Field(None, gt=0, allow_inf_nan=False)
    rerank: str = Field("", max_length=100)
    neighbours: int = Field(0, ge=0, le=MAX_NEIGHBOURS)
    workspace: UUID | None = None


class PassageOut(Schema):
    text: str
    start: int
    end: int


class HitOut(Schema):
    """A passage. `score` is what the hits are in order of, `similarity` the cosine similarity where it was compared."""

    id: UUID
    document_id: UUID
    collection_id: UUID
    collection: str
    title: str
    source: str
    text: str
    start: int
    end: int
    position: int
    page: int | None
    score: float
    similarity: float | None
    metadata: dict[str, Any]
    dated_at: AwareDatetime | None
    neighbours: PassageOut | None


class HitsOut(Schema):
    """The best first."""

    hits: list[HitOut]


@router.post(
    "/search",
    response=HitsOut,
    summary="Find passages; 404 for a collection that isn't the caller's, 429 beyond a rate",
)
async def search(request: HttpRequest, body: SearchIn) -> dict[str, Any]:
    caller = caller_of(request)
    await rates.take("searches", caller.user_id, settings().vector_store.searches_per_minute)
    scope = await database.run(scope_of, caller, body.workspace)
    manager = VectorStoreManager.for_reader(scope.workspace_id, caller.user_id)
    asked = SearchRequest(**body.model_dump(exclude={"workspace"}))
    # A workspace whose default collection isn't made yet has no documents: that is no error.
    hits = await manager.search(asked, must_exist=body.collection is not None)
    return {"hits": [hit.as_json() for hit in hits]}
