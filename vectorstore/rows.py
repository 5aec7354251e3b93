"""What is written of documents: units of work for Scope.run, each one transaction.

Lock order: the document's row, its job, its chunks. Deleting takes what was made from a document with it: chunks,
vectors and kept answers are gone with the commit.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal
from uuid import UUID

from django.contrib.postgres.search import SearchVector
from django.db import connection, transaction
from django.db.models import Q, Value
from django.db.models.functions import Now

from kernel import jobs
from kernel.errors import NotFound, Unavailable
from llm.models import CachedAnswer
from vectorstore.models import (
    Chunk,
    ChunkLookup,
    ChunkVector,
    Collection,
    Document,
    DocumentState,
    Garbage,
    SemanticAnswer,
    SetState,
    StaleMetadata,
    VectorSet,
)
from vectorstore.scope import Scope
from vectorstore.values import LONGEST_TITLE, CollectionInfo, Draft, Ingested, Piece, SetInfo, SourceDocument, Space

#: The backend whose vectors are rows beside the chunks.
BESIDE = "pgvector"
#: Rows for each INSERT: far below the statement timeout, also with long vectors.
_BATCH = 200
#: Vectors for each INSERT: one that has to go into a large index may take 20 ms.
_BATCH_OF_VECTORS = 50


def collection(scope: Scope, name: str, *, create: tuple[str, Space] | None = None) -> CollectionInfo | None:
    """The collection of that name, if the reader may read it; a missing one is made with `create` (backend, space)."""
    row = scope.collections.filter(name=name).first()
    if row is None and create is not None:
        backend, space = create
        row, made = Collection.objects.get_or_create(workspace_id=scope.workspace_id, name=name)
        if made:
            VectorSet.objects.create(
                workspace_id=scope.workspace_id,
                collection=row,
                backend=backend,
                embedding_model=space.model,
                dimension=space.dimension,
            )
        elif not scope.collections.filter(id=row.id).exists():
            return None
    return None if row is None else info(row)


def look_up(scope: Scope, **named: Any) -> CollectionInfo | None:
    """The one collection with these values, if the reader may read it (one query)."""
    wanted = {f"collection__{name}": value for name, value in named.items()}
    sets = list(scope.vector_sets.filter(**wanted).exclude(state=SetState.RETIRED).select_related("collection"))
    return _info(sets[0].collection, {each.state: set_info(each) for each in sets}) if sets else None


def info(row: Any) -> CollectionInfo:
    """A collection's row as a value, with its sets (one query). Raises NotFound if it was deleted meanwhile."""
    found = infos([row])
    if not found:
        raise NotFound("There is no such collection.")
    return found[0]


def infos(found: Sequence[Any]) -> list[CollectionInfo]:
    """`info` of each that is still there, with one query for all."""
    sets: dict[UUID, dict[str, SetInfo]] = {row.id: {} for row in found}
    for each in VectorSet.objects.filter(collection_id__in=sets).exclude(state=SetState.RETIRED):
        sets[each.collection_id][each.state] = set_info(each)
    return [_info(row, sets[row.id]) for row in found if SetState.ACTIVE in sets[row.id]]


def _info(row: Any, sets: Mapping[str, SetInfo]) -> CollectionInfo:
    return CollectionInfo(
        id=row.id,
        workspace_id=row.workspace_id,
        name=row.name,
        language=row.language,
        active=sets[SetState.ACTIVE],
        building=sets.get(SetState.BUILDING),
    )


def set_info(row: VectorSet) -> SetInfo:
    """A set's row as a value."""
    return SetInfo(
        id=row.id,
        workspace_id=row.workspace_id,
        collection_id=row.collection_id,
        backend=row.backend,
        space=Space(model=row.embedding_model, dimension=row.dimension),
        index=row.index,
        index_type=row.index_type,
        index_rows=row.index_rows,
    )


def known(scope: Scope, into: CollectionInfo, document: SourceDocument, content_hash: str) -> Ingested | None:
    """What to answer without embedding anything: this text is there already, and takes on a new title and metadata.
    None: it is to be written.
    """
    same_text = Q(source=document.source) | Q(content_hash=content_hash)
    found = scope.documents.filter(same_text, collection_id=into.id)
    ours = next((row for row in found if row.source == document.source), None)
    if ours is None:
        # A copy would only take a second place among the hits.
        return next((_copy_of(row, document.source) for row in found), None)
    if ours.content_hash != content_hash:
        return None
    wanted = {"title": document.title[:LONGEST_TITLE] or ours.title, "metadata": document.metadata}
    changed = {name: value for name, value in wanted.items() if getattr(ours, name) != value}
    if changed:
        change(ours, into.language, changed)
    return Ingested(source=document.source, outcome="updated" if changed else "unchanged", document_id=ours.id)


def change(row: Document, language: str, values: dict[str, Any]) -> None:
    """Set a document's title or metadata, and what its passages are looked up by with it."""
    for field, value in values.items():
        setattr(row, field, value)
    row.save(update_fields=[*values, "updated_at"])
    with connection.cursor() as cursor:
        cursor.execute(_FOLLOW, [language, row.title, language, row.pk])
    if "metadata" in values:
        _outdate(row)


#: As _lookup writes it.
_FOLLOW = """
    UPDATE vectorstore_chunklookup AS lookup
    SET metadata = document.metadata || chunk.metadata,
        terms = setweight(to_tsvector(%s::regconfig, concat_ws(' ', %s::text, (
                SELECT string_agg(heading, ' ')
                FROM jsonb_array_elements_text(coalesce(chunk.metadata -> 'headings', '[]'::jsonb)) AS heading
                WHERE heading <> document.title
            ))), 'A') || setweight(to_tsvector(%s::regconfig, chunk.text), 'D')
    FROM vectorstore_chunk AS chunk JOIN vectorstore_document AS document ON document.id = chunk.document_id
    WHERE chunk.document_id = %s AND lookup.chunk_id = chunk.id
"""


def _outdate(row: Document) -> None:
    """Have stores outside PostgreSQL told of a document's metadata: some filter by it (vectorstore.refreshing)."""
    outside = VectorSet.objects.filter(collection_id=row.collection_id).exclude(backend=BESIDE)
    sets = list(outside.exclude(state=SetState.RETIRED).values_list("id", flat=True)) if row.chunk_count else []
    StaleMetadata.objects.bulk_create(
        [StaleMetadata(vector_set_id=each, document_id=row.pk, lease_expires_at=Now()) for each in sets],
        update_conflicts=True,
        unique_fields=["vector_set", "document"],
        update_fields=["change"],
    )
    if sets:
        transaction.on_commit(partial(jobs.tell, "vectorstore.tasks.refresh_metadata"))


def _copy_of(row: Any, source: str) -> Ingested:
    return Ingested(source=source, outcome="skipped", document_id=row.id, reason=f"same content as {row.source}")


class StaleSets(Unavailable):
    """The collection's vectors were made anew meanwhile: what was drafted lacks some, and is drafted again."""

    code = "collection_changed"
    default_message = "The collection is being changed; try again."


def replace(scope: Scope, into: CollectionInfo, draft: Draft) -> Ingested:
    """Put the document in the place of what its source had before: all of it, or nothing.

    A draft without pieces has no text: nothing takes its place. Raises StaleSets.
    """
    source = draft.document.source
    if not draft.pieces:
        delete_documents(
            scope, scope.documents.filter(collection_id=into.id, source=source).values_list("id", flat=True)
        )
        return Ingested(source=source, outcome="skipped", reason="it has no text")
    # Locked, so that two workers on one document write it one after the other.
    row, added = Document.objects.select_for_update().get_or_create(
        workspace_id=scope.workspace_id, collection_id=into.id, source=source, defaults={"title": draft.title}
    )
    if not added and row.content_hash == draft.content_hash:
        return Ingested(source=row.source, outcome="unchanged", document_id=row.id)
    return write(into, row, draft)


def write(into: CollectionInfo, row: Document, draft: Draft) -> Ingested:
    """Write the pieces in the place of what the locked document had. Raises StaleSets."""
    _check_sets(into)
    if row.chunk_count:
        _remove_chunks([row.id])
    given = draft.document
    Document.objects.filter(id=row.id).update(
        title=draft.title,
        content_hash=draft.content_hash,
        upload_hash=given.upload_hash,
        metadata=given.metadata,
        text=given.text,
        markdown=given.markdown,
        content_type=given.content_type,
        size=len(given.text.encode()) if given.size is None else given.size,
        chunk_count=len(draft.pieces),
        dated_at=given.dated_at,
        indexed_at=Now(),
        state=DocumentState.READY,
        done=len(draft.pieces),
        total=len(draft.pieces),
        reason="",
        error_code="",
        updated_at=Now(),
    )
    _add_chunks(into, row.id, draft)
    Garbage.objects.filter(id__in=draft.left_over).delete()
    outcome: Literal["added", "updated"] = "updated" if row.chunk_count else "added"
    return Ingested(source=row.source, outcome=outcome, document_id=row.id, chunks=len(draft.pieces))


def _check_sets(into: CollectionInfo) -> None:
    """Hold the collection's sets as they were when the draft was made: who changes them locks the collection's row."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM vectorstore_collection WHERE id = %s FOR KEY SHARE", [into.id])
    now = VectorSet.objects.filter(collection_id=into.id).exclude(state=SetState.RETIRED)
    drafted = {each.id for each in (into.active, into.building) if each is not None}
    if set(now.values_list("id", flat=True)) != drafted:
        raise StaleSets


def delete_documents(scope: Scope, ids: Iterable[UUID]) -> int:
    """Remove documents of the scope with all that was made from them; how many there were."""
    found = list(scope.documents.filter(id__in=list(ids)).select_for_update(of=("self",)).values_list("id", flat=True))
    if found:
        _remove_chunks(found)
        Document.objects.filter(id__in=found).delete()
    return len(found)


def still_there(document_ids: Sequence[UUID]) -> bool:
    """Whether none of these documents is gone. Who deletes one waits for the transaction that asked."""
    with connection.cursor() as cursor:
        wanted = list(document_ids)
        cursor.execute("SELECT 1 FROM vectorstore_document WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE", [wanted])
        return len(cursor.fetchall()) == len(set(wanted))


def _remove_chunks(document_ids: Sequence[UUID]) -> None:
    """Remove the chunks of these documents, their vectors, and the answers that were made from them."""
    outside = VectorSet.objects.filter(collection__documents__in=document_ids).exclude(backend=BESIDE).distinct()
    chunks = Chunk.objects.filter(document_id__in=document_ids)
    # Locked before their vectors go: a set that is being filled may be writing some (reembedding).
    ids = list(chunks.order_by("id").select_for_update(of=("self",)).values_list("id", flat=True))
    if sets := list(outside):
        Garbage.objects.bulk_create(
            Garbage(backend=each.backend, set_id=each.id, chunk_ids=ids, lease_expires_at=Now()) for each in sets
        )
    ChunkVector.objects.filter(chunk__document_id__in=document_ids).delete()
    ChunkLookup.objects.filter(document_id__in=document_ids).delete()
    chunks.delete()
    for kept in (CachedAnswer, SemanticAnswer):
        kept.objects.filter(document_ids__overlap=list(document_ids)).delete()


def _add_chunks(into: CollectionInfo, document_id: UUID, draft: Draft) -> None:
    rows = [_chunk(into, document_id, position, piece) for position, piece in enumerate(draft.pieces)]
    Chunk.objects.bulk_create(rows, batch_size=_BATCH)
    beside = [each for each in (into.active, into.building) if each is not None and each.backend == BESIDE]
    ChunkVector.objects.bulk_create(
        [
            ChunkVector(vector_set_id=each.id, chunk_id=row.id, embedding=piece.vectors[each.id])
            for each in beside
            for row, piece in zip(rows, draft.pieces, strict=True)
        ],
        batch_size=_BATCH_OF_VECTORS,
    )
    ChunkLookup.objects.bulk_create([_lookup(into, row, draft) for row in rows], batch_size=_BATCH)


def _chunk(into: CollectionInfo, document_id: UUID, position: int, piece: Piece) -> Chunk:
    return Chunk(
        workspace_id=into.workspace_id,
        collection_id=into.id,
        document_id=document_id,
        id=piece.id,
        position=position,
        text=piece.text,
        start=piece.start,
        end=piece.end,
        embedded_hash=piece.embedded_hash,
        metadata=piece.metadata,
    )


def _lookup(into: CollectionInfo, row: Chunk, draft: Draft) -> ChunkLookup:
    above = " ".join(dict.fromkeys((draft.title, *row.metadata.get("headings", ()))))
    return ChunkLookup(
        chunk=row,
        workspace_id=into.workspace_id,
        collection_id=into.id,
        document_id=row.document_id,
        terms=_terms(into.language, above, "A") + _terms(into.language, row.text, "D"),
        metadata=draft.document.metadata | row.metadata,
    )


def _terms(language: str, text: str, weight: str) -> Any:
    return SearchVector(Value(text), config=language, weight=weight)
