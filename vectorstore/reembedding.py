"""A collection's vectors from another model, or in another backend, while people search and add to it.

A second set is filled in the background; what is ingested meanwhile goes to both. When nothing is missing, searches
are switched to it in one transaction, and the old one goes some time later: searches that have begun may still ask it.

Every chunk that is written after `begin` has a vector in the new set, because rows.write checks the sets under a lock
of the collection's row. So one walk over the chunks, in order of their ids, misses none; what is walked twice is
written twice, with the same vectors, from the cache of embeddings.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from time import monotonic
from typing import Any, Literal
from uuid import UUID, uuid4

from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from kernel import database
from kernel.errors import ChainError, Conflict, NotFound
from llm.embeddings.embedder import Embedder, embedder_of
from vectorstore import cached_embeddings, drafting, indexing
from vectorstore.backends import backend
from vectorstore.errors import EmbeddingMismatch
from vectorstore.leases import LeaseLost, while_renewing
from vectorstore.models import ChunkVector, Collection, Garbage, IndexState, SetState, VectorSet
from vectorstore.rows import BESIDE, set_info
from vectorstore.scope import Scope
from vectorstore.values import Entry, SetInfo, Space

logger = logging.getLogger(__name__)

Outcome = Literal["switched", "unfinished", "failed", "lost"]
_BATCH = 128
_LEASE = timedelta(minutes=2)
_PAUSE = timedelta(minutes=1)
#: Seconds of one worker's turn: below the time limit of tasks.
_TURN = 240.0
#: How long a search may take that knows the old set.
GRACE = timedelta(minutes=10)
_REMOVED = 5_000


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`done` of `total` chunks have a vector in the new set. `reason` says why the last try failed."""

    set_id: UUID
    space: Space
    backend: str
    done: int
    total: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A set that this worker holds."""

    vectors: SetInfo
    scope: Scope
    token: str


def begin(scope: Scope, collection_id: UUID, space: Space, backend_name: str) -> UUID:
    """Start a new set beside the active one (a unit for Scope.run); its id. Tell `reembed` of it after the commit.

    Raises NotFound, and Conflict if one is being built or the vectors are such ones already.
    """
    _hold(scope, collection_id)
    sets = VectorSet.objects.filter(workspace_id=scope.workspace_id, collection_id=collection_id)
    if sets.filter(state=SetState.BUILDING).exists():
        raise Conflict("The collection is being embedded anew; wait for it, or cancel it.")
    wanted = {"backend": backend_name, "embedding_model": space.model, "dimension": space.dimension}
    if sets.filter(state=SetState.ACTIVE, **wanted).exists():
        raise Conflict(f"The collection has vectors of {space.model} in {backend_name} already.")
    row = VectorSet.objects.create(
        workspace_id=scope.workspace_id,
        collection_id=collection_id,
        state=SetState.BUILDING,
        lease_expires_at=Now(),
        **wanted,
    )
    found: UUID = row.id
    return found


def cancel(scope: Scope, collection_id: UUID) -> bool:
    """Give up the set that is being built (a unit for Scope.run); False: there is none."""
    _hold(scope, collection_id)
    building = VectorSet.objects.filter(collection_id=collection_id, state=SetState.BUILDING)
    return bool(building.update(state=SetState.RETIRED, owner="", updated_at=Now()))


async def progress(scope: Scope, collection_id: UUID) -> Progress | None:
    """How far the set is that is being built; None: there is none."""
    row, total = await scope.run(_building, collection_id)
    if row is None:
        return None
    vectors = set_info(row)
    held = await backend(vectors.backend, scope.workspace_id).stats(vectors)
    return Progress(
        set_id=row.id,
        space=vectors.space,
        backend=vectors.backend,
        done=min(held.vectors, total),
        total=total,
        reason=row.reason,
    )


async def work(
    set_id: UUID, after: UUID | None = None, *, embedder: Embedder | None = None
) -> tuple[Outcome, UUID | None]:
    """Fill a set for a while, from the chunk after `after`, and switch to it once it is full.

    Gives what became of it, and for `unfinished` the chunk to go on after. `lost`: it is another worker's, or gone.
    """
    token = uuid4().hex
    row = await database.run(_claim, set_id, token)
    if row is None:
        return "lost", None
    ours = _Work(vectors=set_info(row), scope=Scope(row.workspace_id), token=token)
    try:
        return await _fill(ours, after, embedder or _embedder(ours.vectors.space))
    except LeaseLost:
        return "lost", None
    except ChainError as error:
        logger.warning("action=reembedding_failed set=%s code=%s", set_id, error.code)
        await ours.scope.run(_release, ours, _PAUSE, error.message)
        return "failed", None


def overdue() -> list[UUID]:
    """Sets that nobody fills (database work): a broker that lost its tasks is told again."""
    found = VectorSet.objects.filter(state=SetState.BUILDING, lease_expires_at__lte=Now())
    return list(found.order_by("lease_expires_at").values_list("id", flat=True)[:100])


def clear_retired() -> int:
    """Remove some of what no search asks any more (database work); how many sets are gone."""
    gone, left = 0, _REMOVED
    over = VectorSet.objects.filter(state=SetState.RETIRED, updated_at__lt=Now() - GRACE)
    # Their indexes go at the next look; see indexing.drop_unneeded.
    over.exclude(index=IndexState.NONE).update(index=IndexState.NONE)
    for row in over[:100]:
        if row.backend == BESIDE:
            batch = list(ChunkVector.objects.filter(vector_set=row).values_list("id", flat=True)[:left])
            ChunkVector.objects.filter(id__in=batch).delete()
            left -= len(batch)
            if left <= 0:
                break
        else:
            Garbage.objects.create(backend=row.backend, set_id=row.id, lease_expires_at=Now())
        row.delete()
        gone += 1
    return gone


async def _fill(ours: _Work, after: UUID | None, embedder: Embedder) -> tuple[Outcome, UUID | None]:
    ends = monotonic() + _TURN
    while True:
        rows = await ours.scope.run(_chunks, ours.vectors, after)
        if not rows:
            break
        if not await _add(ours, rows, embedder):
            return "lost", None
        after = rows[-1]["id"]
        if monotonic() > ends:
            await ours.scope.run(_release, ours, timedelta(0), "")
            return "unfinished", after
    if not await _indexed(ours):
        await ours.scope.run(_release, ours, timedelta(0), "")
        return "unfinished", after
    return await ours.scope.run(_switch, ours), None


async def _indexed(ours: _Work) -> bool:
    """Build the index of a large set before people search it; False: others are building, it is to be asked again.

    Raises LeaseLost: the set was given up meanwhile.
    """

    async def renew() -> bool:
        return await ours.scope.run(_renew, ours)

    return await while_renewing(indexing.ensure(ours.vectors.id), renew, every=_LEASE / 4)


async def _add(ours: _Work, rows: Sequence[dict[str, Any]], embedder: Embedder) -> bool:
    """Whether the set is still this worker's."""
    texts = [
        drafting.embedded_text(row["document__title"], row["metadata"].get("headings", ()), row["text"]) for row in rows
    ]
    hashes = [sha256(text.encode()).hexdigest() for text in texts]
    made = await cached_embeddings.vectors(ours.scope, embedder, texts, hashes)
    vectors = dict(zip((row["id"] for row in rows), made, strict=True))
    if ours.vectors.backend == BESIDE:
        return await ours.scope.run(_add_beside, ours, vectors)
    entries = [
        Entry(chunk_id=row["id"], vector=vectors[row["id"]], metadata=row["document__metadata"] | row["metadata"])
        for row in rows
    ]
    await backend(ours.vectors.backend, ours.scope.workspace_id).add(ours.vectors, entries)
    return await ours.scope.run(_added_outside, ours, list(vectors))


def _embedder(space: Space) -> Embedder:
    found = embedder_of(space.model, space.dimension)
    if found is None:
        raise EmbeddingMismatch(
            f"The settings know no model {space.model} of {space.dimension} dimensions; add it to EMBEDDINGS['MODELS']."
        )
    return found


def _hold(scope: Scope, collection_id: UUID) -> None:
    """Lock the collection against everything that writes vectors, until the transaction ends."""
    if not scope.collections.select_for_update(of=("self",)).filter(id=collection_id).exists():
        raise NotFound


def _building(scope: Scope, collection_id: UUID) -> tuple[VectorSet | None, int]:
    found = scope.vector_sets.filter(collection_id=collection_id, state=SetState.BUILDING)
    return found.first(), scope.chunks.filter(collection_id=collection_id).count()


def _claim(set_id: UUID, token: str) -> VectorSet | None:
    free = Q(lease_expires_at=None) | Q(lease_expires_at__lte=Now())
    found = VectorSet.objects.filter(free, id=set_id, state=SetState.BUILDING)
    if not found.update(owner=token, lease_expires_at=Now() + _LEASE):
        return None
    return VectorSet.objects.filter(id=set_id, owner=token).first()


def _held(ours: _Work) -> Any:
    return VectorSet.objects.filter(id=ours.vectors.id, owner=ours.token, state=SetState.BUILDING)


def _renew(scope: Scope, ours: _Work) -> bool:
    return bool(_held(ours).update(lease_expires_at=Now() + _LEASE))


def _release(scope: Scope, ours: _Work, pause: timedelta, reason: str) -> None:
    _held(ours).update(owner="", lease_expires_at=Now() + pause, reason=reason[:500])


def _chunks(scope: Scope, vectors: SetInfo, after: UUID | None) -> list[dict[str, Any]]:
    """The next ones; of those beside the rows, only what has no vector yet."""
    found = scope.chunks.filter(collection_id=vectors.collection_id)
    if after is not None:
        found = found.filter(id__gt=after)
    if vectors.backend == BESIDE:
        found = found.exclude(Exists(_beside(vectors)))
    names = ("id", "text", "metadata", "document__title", "document__metadata")
    return list(found.order_by("id").values(*names)[:_BATCH])


def _beside(vectors: SetInfo) -> Any:
    return ChunkVector.objects.filter(vector_set_id=vectors.id, chunk_id=OuterRef("pk"))


def _add_beside(scope: Scope, ours: _Work, vectors: dict[UUID, list[float]]) -> bool:
    if not _renew(scope, ours):
        return False
    # Those that were deleted meanwhile are left out; the others can't be until this is committed.
    living = scope.chunks.filter(id__in=list(vectors)).order_by("id").select_for_update(of=("self",), no_key=True)
    ChunkVector.objects.bulk_create(
        [
            ChunkVector(vector_set_id=ours.vectors.id, chunk_id=each, embedding=vectors[each])
            for each in living.values_list("id", flat=True)
        ],
        ignore_conflicts=True,
    )
    return True


def _added_outside(scope: Scope, ours: _Work, chunk_ids: list[UUID]) -> bool:
    living = set(scope.chunks.filter(id__in=chunk_ids).values_list("id", flat=True))
    gone = [each for each in chunk_ids if each not in living]
    held = _renew(scope, ours)
    if gone or not held:
        # Deleted while they were written, or a set that was given up: the latter goes whole.
        Garbage.objects.create(
            backend=ours.vectors.backend, set_id=ours.vectors.id, chunk_ids=gone or chunk_ids, lease_expires_at=Now()
        )
    return held


def _switch(scope: Scope, ours: _Work) -> Outcome:
    """From here on searches ask the new set."""
    Collection.objects.select_for_update().filter(id=ours.vectors.collection_id).first()
    if not _held(ours).exists():
        return "lost"
    if ours.vectors.backend == BESIDE and _chunks(scope, ours.vectors, None):
        # A walk that began in the middle.
        _release(scope, ours, timedelta(0), "")
        return "unfinished"
    sets = VectorSet.objects.filter(collection_id=ours.vectors.collection_id)
    sets.filter(state=SetState.ACTIVE).update(state=SetState.RETIRED, updated_at=Now())
    # What it says of an index that failed stays.
    _held(ours).exclude(index=IndexState.FAILED).update(reason="")
    _held(ours).update(state=SetState.ACTIVE, owner="", lease_expires_at=None, updated_at=Now())
    return "switched"
