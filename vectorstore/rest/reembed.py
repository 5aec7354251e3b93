"""REST for re-embedding: a collection's vectors from another model, or in another store, while people search it.

Admins of the workspace start and cancel it, who reads the collection watches. Rules: vectorstore.reembedding.
"""

import asyncio
from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema, Status
from pydantic import BaseModel, Field

from kernel import jobs
from kernel.conf import config as settings
from kernel.errors import Invalid, Misconfigured, NotFound, StoreUnavailable
from llm.embeddings.embedder import embedder
from vectorstore import collections, reembedding, rows
from vectorstore.backends import backend
from vectorstore.reembedding import Progress
from vectorstore.rest.places import Line, Ref, in_place
from vectorstore.scope import Scope
from vectorstore.values import CollectionInfo, SetInfo, Space

router = Router(tags=["documents"])
#: A backend is asked for whether it is set up; that doesn't depend on whose.
_NOBODY = UUID(int=0)


class ReembedIn(BaseModel, extra="forbid"):
    """`model`: an alias of EMBEDDINGS["MODELS"], or `default`. `backend`: a store; empty: the one of the settings."""

    model: Annotated[Line, Field(min_length=1, max_length=100)] = "default"
    backend: Annotated[Line, Field(max_length=100)] = ""


class VectorsOut(Schema):
    embedding_model: str
    dimension: int
    backend: str


class BuildingOut(VectorsOut):
    """`done` of `total` passages have a vector, null while its store can't be asked. `reason`: why the last try failed;
    it is tried again each minute.
    """

    done: int | None
    total: int | None
    reason: str


class ReembedOut(Schema):
    """`active`: what searches ask now. `building`: what is to take its place; null: nothing is under way."""

    active: VectorsOut
    building: BuildingOut | None


@router.post(
    "/collections/{ref}/reembed",
    response={202: ReembedOut},
    summary="Make a collection's vectors anew; 409 if that is under way, or they are such ones already; for admins",
)
async def begin_reembedding(
    request: HttpRequest, ref: Ref, body: ReembedIn, workspace: UUID | None = None
) -> Status[dict[str, Any]]:
    # Who may, before what is wrong with the request is told.
    await in_place(request, workspace, collections.administered, ref)
    # A store's package is imported, which may take a second.
    space, store = await asyncio.to_thread(_target, body)
    set_id = await in_place(request, workspace, _begin, ref, space, store)
    # A broker that is away loses nothing: a sweep finds sets that nobody fills.
    await asyncio.to_thread(jobs.tell, "vectorstore.tasks.reembed", str(set_id))
    return Status(202, await _shown(request, workspace, ref))


@router.get("/collections/{ref}/reembed", response=ReembedOut, summary="How far the new vectors of a collection are")
async def get_reembedding(request: HttpRequest, ref: Ref, workspace: UUID | None = None) -> dict[str, Any]:
    return await _shown(request, workspace, ref)


@router.delete(
    "/collections/{ref}/reembed",
    response={204: None},
    summary="Give the new vectors up; searches stay as they are. 404 if nothing is under way; for admins",
)
async def cancel_reembedding(request: HttpRequest, ref: Ref, workspace: UUID | None = None) -> HttpResponse:
    await in_place(request, workspace, _cancel, ref)
    return HttpResponse(status=204)


def _target(body: ReembedIn) -> tuple[Space, str]:
    """What the new vectors are. Raises Invalid for a model or a store that this server doesn't have."""
    store = body.backend or settings().vector_store.backend
    try:
        made = embedder(body.model)
        backend(store, _NOBODY)
    except Misconfigured as error:
        raise Invalid(error.message) from error
    return Space(model=made.model, dimension=made.dimension), store


def _begin(scope: Scope, ref: UUID | str, space: Space, store: str) -> UUID:
    return reembedding.begin(scope, collections.administered(scope, ref).pk, space, store)


def _cancel(scope: Scope, ref: UUID | str) -> None:
    if not reembedding.cancel(scope, collections.administered(scope, ref).pk):
        raise NotFound("No new vectors are being made for this collection.")


async def _shown(request: HttpRequest, workspace: UUID | None, ref: UUID | str) -> dict[str, Any]:
    scope, found = await in_place(request, workspace, _found, ref)
    return {"active": _set(found.active), "building": found.building and await _building(scope, found.building)}


async def _building(scope: Scope, vectors: SetInfo) -> dict[str, Any] | None:
    try:
        now = await reembedding.progress(scope, vectors.collection_id)
    except StoreUnavailable as error:
        return _set(vectors) | {"done": None, "total": None, "reason": error.message}
    return None if now is None else _progress(now)


def _found(scope: Scope, ref: UUID | str) -> tuple[Scope, CollectionInfo]:
    return scope, rows.info(collections.readable(scope, ref))


def _set(vectors: SetInfo) -> dict[str, Any]:
    space = vectors.space
    return {"embedding_model": space.model, "dimension": space.dimension, "backend": vectors.backend}


def _progress(now: Progress) -> dict[str, Any]:
    counts = {"done": now.done, "total": now.total, "reason": now.reason}
    return {"embedding_model": now.space.model, "dimension": now.space.dimension, "backend": now.backend} | counts
