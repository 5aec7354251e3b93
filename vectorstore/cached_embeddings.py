"""Vectors that were made once are not made again: neither after a crash in the middle of a document, nor for the chunks
of a new version that are as they were. Kept for each workspace apart, so that nobody learns what others have indexed.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID

from django.db.models.functions import Now

from kernel.conf import config
from llm.embeddings.embedder import Embedder, Vector
from vectorstore.models import CachedEmbedding
from vectorstore.scope import Scope

#: Texts that are looked up together.
BATCH = 256
_ROWS = 200
#: Rows that are told of a use once a day at most: a read that writes each time would cost more than it saves.
_FRESH = timedelta(days=1)
_PRUNED = 10_000

Progress = Callable[[int, int], Awaitable[None]]


async def vectors(
    scope: Scope, embedder: Embedder, texts: Sequence[str], hashes: Sequence[str], progress: Progress | None = None
) -> list[Vector]:
    """One vector a text, in order. `hashes` are the texts' SHA-256; `progress` hears how many of how many are done."""
    made: list[Vector] = []
    for start in range(0, len(texts), BATCH):
        part = slice(start, start + BATCH)
        made += await _part(scope, embedder, texts[part], hashes[part])
        if progress is not None:
            await progress(len(made), len(texts))
    return made


async def _part(scope: Scope, embedder: Embedder, texts: Sequence[str], hashes: Sequence[str]) -> list[Vector]:
    known = await scope.run(_find, embedder.model, embedder.dimension, sorted(set(hashes)))
    missing = {hashed: text for hashed, text in zip(hashes, texts, strict=True) if hashed not in known}
    wanted = list(missing)
    # Each request's vectors are kept before the next one is sent: a death or a failure costs one request at most.
    for start in range(0, len(wanted), embedder.batch_size):
        part = wanted[start : start + embedder.batch_size]
        fresh = dict(zip(part, await embedder.documents([missing[hashed] for hashed in part]), strict=True))
        await scope.run(_keep, embedder.model, embedder.dimension, fresh)
        known |= fresh
    return [known[hashed] for hashed in hashes]


def _find(scope: Scope, model: str, dimension: int, hashes: Sequence[str]) -> dict[str, Vector]:
    rows = CachedEmbedding.objects.filter(
        workspace_id=scope.workspace_id, text_hash__in=hashes, embedding_model=model, dimension=dimension
    )
    found = {row.text_hash: [float(part) for part in row.embedding] for row in rows}
    if found:
        rows.filter(used_at__lt=Now() - _FRESH).update(used_at=Now())
    return found


def _keep(scope: Scope, model: str, dimension: int, fresh: dict[str, Vector]) -> None:
    CachedEmbedding.objects.bulk_create(
        (
            CachedEmbedding(
                workspace_id=scope.workspace_id,
                embedding_model=model,
                dimension=dimension,
                text_hash=hashed,
                embedding=vector,
                used_at=Now(),
            )
            for hashed, vector in fresh.items()
        ),
        batch_size=_ROWS,
        # Two workers may have embedded the same text.
        ignore_conflicts=True,
    )


def prune() -> int:
    """Forget what was not used for EMBEDDING_CACHE_DAYS (database work); how many went. Bounded: a task comes again."""
    age = timedelta(days=config().vector_store.embedding_cache_days)
    old = CachedEmbedding.objects.filter(used_at__lt=Now() - age).order_by("used_at").values_list("id", flat=True)
    deleted, _ = CachedEmbedding.objects.filter(id__in=list(old[:_PRUNED])).delete()
    return deleted + _prune_largest()


def _prune_largest() -> int:
    """What goes beyond EMBEDDING_CACHE_ROWS of a workspace, the longest unused first."""
    most = config().vector_store.embedding_cache_rows
    found = CachedEmbedding.objects.order_by("workspace_id").values_list("workspace_id", flat=True).distinct()
    return sum(_prune_one(workspace_id, most) for workspace_id in found)


def _prune_one(workspace_id: UUID, most: int) -> int:
    newest = CachedEmbedding.objects.filter(workspace_id=workspace_id).order_by("-used_at", "-id")
    beyond = newest.values_list("id", flat=True)[most : most + _PRUNED]
    deleted, _ = CachedEmbedding.objects.filter(id__in=list(beyond)).delete()
    return deleted
