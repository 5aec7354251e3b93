"""Backend `pgvector`: vectors beside their rows in PostgreSQL, on Django's ORM.

A search compares exactly with every vector of the collection. The sync functions are units of work: one hop each.
"""

import math
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from pgvector.django import CosineDistance

from kernel import database
from vectorstore.models import Chunk
from vectorstore.scope import Scope
from vectorstore.values import CollectionInfo, Draft, Hit, Ingested, Space

#: Rows for each INSERT: far below the statement timeout, also with long vectors.
_BATCH = 200


class PgVector:
    def __init__(self, workspace_id: UUID) -> None:
        self._scope = Scope(workspace_id)

    async def collection(self, name: str, *, create: Space | None = None) -> CollectionInfo | None:
        return await database.run(_collection, self._scope, name, create=create)

    async def known(self, collection: CollectionInfo, source: str, content_hash: str) -> Ingested | None:
        return await database.run(_known, self._scope, collection.id, source, content_hash)

    async def replace(self, collection: CollectionInfo, draft: Draft) -> Ingested:
        return await database.run(_replace, self._scope, collection.id, draft)

    async def search(self, collection: CollectionInfo, vector: list[float], *, k: int) -> list[Hit]:
        return await database.run(_search, self._scope, collection.id, vector, k=k)

    async def delete(self, document_id: UUID) -> bool:
        return await database.run(_delete, self._scope, document_id)


def create(config: dict[str, Any]) -> PgVector:
    return PgVector(config["workspace_id"])


def _collection(scope: Scope, name: str, *, create: Space | None) -> CollectionInfo | None:
    row = scope.collections.filter(name=name).first()
    if row is None and create is not None:
        row, _ = scope.collections.get_or_create(
            workspace_id=scope.workspace_id,
            name=name,
            defaults={"embedding_model": create.model, "dimension": create.dimension},
        )
    if row is None:
        return None
    return CollectionInfo(id=row.id, name=row.name, space=Space(model=row.embedding_model, dimension=row.dimension))


def _known(scope: Scope, collection_id: UUID, source: str, content_hash: str) -> Ingested | None:
    rows = scope.documents.filter(Q(source=source) | Q(content_hash=content_hash), collection_id=collection_id)
    ours = next((row for row in rows if row.source == source), None)
    if ours is not None:
        same = ours.content_hash == content_hash
        return Ingested(source=source, outcome="unchanged", document_id=ours.id) if same else None
    # A copy would only take a second place among the hits.
    return next((_copy_of(row, source) for row in rows), None)


def _copy_of(row: Any, source: str) -> Ingested:
    return Ingested(source=source, outcome="skipped", document_id=row.id, reason=f"same content as {row.source}")


@transaction.atomic
def _replace(scope: Scope, collection_id: UUID, draft: Draft) -> Ingested:
    if not draft.pieces:
        scope.documents.filter(collection_id=collection_id, source=draft.document.source).delete()
        return Ingested(source=draft.document.source, outcome="skipped", reason="it has no text")
    values = {"title": draft.title, "content_hash": draft.content_hash, "metadata": draft.document.metadata}
    # Locked, so that two workers on one document write it one after the other.
    row, added = scope.documents.select_for_update().get_or_create(
        workspace_id=scope.workspace_id, collection_id=collection_id, source=draft.document.source, defaults=values
    )
    if not added and row.content_hash == draft.content_hash:
        return Ingested(source=row.source, outcome="unchanged", document_id=row.id)
    if not added:
        scope.chunks.filter(document_id=row.id).delete()
        for name, value in values.items():
            setattr(row, name, value)
        row.save(update_fields=[*values, "updated_at"])
    Chunk.objects.bulk_create(_chunks(scope, collection_id, row.id, draft), batch_size=_BATCH)
    return Ingested(
        source=row.source, outcome="added" if added else "updated", document_id=row.id, chunks=len(draft.pieces)
    )


def _chunks(scope: Scope, collection_id: UUID, document_id: UUID, draft: Draft) -> list[Chunk]:
    return [
        Chunk(
            workspace_id=scope.workspace_id,
            collection_id=collection_id,
            document_id=document_id,
            position=position,
            text=piece.text,
            start=piece.start,
            end=piece.end,
            embedding=piece.vector,
            metadata=piece.metadata,
        )
        for position, piece in enumerate(draft.pieces)
    ]


def _search(scope: Scope, collection_id: UUID, vector: list[float], *, k: int) -> list[Hit]:
    rows = (
        scope.chunks.filter(collection_id=collection_id)
        .annotate(distance=CosineDistance("embedding", vector))
        .order_by("distance", "id")
        .values_list("id", "document_id", "document__title", "document__source", "text", "distance", "start", "end")[:k]
    )
    names = ("id", "document_id", "title", "source", "text", "score", "start", "end")
    hits = [Hit(**dict(zip(names, row, strict=True)) | {"score": 1 - row[5]}) for row in rows]
    # A vector without length has no distance: a text without words, or such a question.
    return [hit for hit in hits if not math.isnan(hit.score)]


def _delete(scope: Scope, document_id: UUID) -> bool:
    deleted, _ = scope.documents.filter(id=document_id).delete()
    return deleted > 0
