"""Backend `pgvector`: vectors beside their rows in PostgreSQL, on Django's ORM."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar
from uuid import UUID

from django.db import connection

from vectorstore import index_scan
from vectorstore.backends import fitting
from vectorstore.candidates import Narrowing
from vectorstore.filters import Filter
from vectorstore.models import ChunkVector, VectorSet
from vectorstore.scope import Scope
from vectorstore.values import Entry, Scored, SetInfo, SetStats

_BATCH = 200


class PgVector:
    beside_rows: ClassVar[bool] = True

    def __init__(self, workspace_id: UUID) -> None:
        self._scope = Scope(workspace_id)

    async def add(self, vectors: SetInfo, entries: Sequence[Entry]) -> None:
        fitting(vectors, entries)
        await self._scope.run(_add, vectors, entries)

    async def remove(self, vectors: SetInfo, chunk_ids: Sequence[UUID]) -> None:
        await self._scope.run(_remove, vectors, chunk_ids)

    async def search(
        self, vectors: SetInfo, vector: Sequence[float], *, k: int, where: Filter | None = None
    ) -> list[Scored]:
        # Filters are the look-up's: the manager asks PostgreSQL for both in one statement and doesn't come this way.
        return await self._scope.tuned(index_scan.settings(vectors, k)).run(_search, vectors, vector, k=k)

    async def drop(self, vectors: SetInfo) -> None:
        await self._scope.run(_remove, vectors, None)

    async def stats(self, vectors: SetInfo) -> SetStats:
        return await self._scope.run(_stats, vectors)

    async def health(self) -> None:
        await self._scope.run(_look)


def create(config: dict[str, Any]) -> PgVector:
    return PgVector(config["workspace_id"])


def _vectors(scope: Scope, vectors: SetInfo) -> Any:
    return ChunkVector.objects.filter(vector_set__workspace_id=scope.workspace_id, vector_set_id=vectors.id)


def _add(scope: Scope, vectors: SetInfo, entries: Sequence[Entry]) -> None:
    known = VectorSet.objects.filter(id=vectors.id, workspace_id=scope.workspace_id).get()
    ChunkVector.objects.bulk_create(
        [ChunkVector(vector_set=known, chunk_id=entry.chunk_id, embedding=entry.vector) for entry in entries],
        batch_size=_BATCH,
        update_conflicts=True,
        unique_fields=["vector_set", "chunk"],
        update_fields=["embedding"],
    )


def _remove(scope: Scope, vectors: SetInfo, chunk_ids: Sequence[UUID] | None) -> None:
    found = _vectors(scope, vectors)
    if chunk_ids is not None:
        found = found.filter(chunk_id__in=list(chunk_ids))
    found.delete()


def _stats(scope: Scope, vectors: SetInfo) -> SetStats:
    return SetStats(vectors=_vectors(scope, vectors).count())


def _look(scope: Scope) -> None:
    scope.vector_sets.exists()


def _search(scope: Scope, vectors: SetInfo, vector: Sequence[float], *, k: int) -> list[Scored]:
    ours = replace(vectors, workspace_id=scope.workspace_id)
    text, values = index_scan.nearest(ours, vector, limit=k, narrowing=Narrowing())
    with connection.cursor() as cursor:
        cursor.execute(text, values)
        # A vector without length has no distance: a text without words, or such a question.
        return [Scored(chunk_id, 1 - distance) for chunk_id, distance in cursor.fetchall() if not math.isnan(distance)]
