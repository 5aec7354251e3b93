"""Documents and passages as people read, rename and remove them: units of work for Scope, on somebody's behalf."""

from typing import Any
from uuid import UUID

from django.db.models import F, Value
from django.db.models.functions import Length, Now, Substr

from kernel.errors import Invalid, NotFound
from vectorstore import collections, rows
from vectorstore.models import DocumentState
from vectorstore.scope import Scope

#: Characters of a document's text in one answer.
MAX_WINDOW = 20_000


def listed(scope: Scope, ref: UUID | str, *, state: DocumentState | None = None) -> Any:
    """A collection's documents, without their texts; none while the default one isn't made yet. Raises NotFound."""
    try:
        found = scope.documents.filter(collection_id=collections.readable(scope, ref).pk)
    except NotFound:
        if ref != collections.DEFAULT:
            raise
        return scope.documents.none()
    return found if state is None else found.filter(state=state)


def readable(scope: Scope, document_id: UUID) -> Any:
    """A document, without its text. Raises NotFound."""
    row = scope.documents.filter(pk=document_id).first()
    if row is None:
        raise NotFound("There is no such document among yours.")
    return row


def writable(scope: Scope, document_id: UUID) -> Any:
    """As `readable`, locked; raises Forbidden for one that the reader may not change."""
    found = scope.documents.filter(pk=document_id).select_related("collection").select_for_update(of=("self",))
    row = found.first()
    if row is None:
        raise NotFound("There is no such document among yours.")
    collections.check_writer(scope, row.collection)
    return row


def change(scope: Scope, document_id: UUID, values: dict[str, Any]) -> Any:
    """Set `title` or `metadata`; searches go by them from then on, and an ingest that is under way keeps them.

    Vectors hold the title that they were made with.
    """
    row = writable(scope, document_id)
    if not values.get("title", row.title).strip():
        raise Invalid("A title has 1 to 500 characters.")
    rows.change(row, row.collection.language, values)
    scope.jobs.filter(document_id=row.pk).update(**values, updated_at=Now())
    return row


def delete(scope: Scope, document_id: UUID) -> None:
    """Remove a document with its passages, vectors and the answers that were made from it."""
    rows.delete_documents(scope, [writable(scope, document_id).pk])


def window(scope: Scope, document_id: UUID, start: int, end: int | None) -> dict[str, Any]:
    """Characters `start` to `end` of a document's text, and how many it has. Raises NotFound, Invalid if too many."""
    end = start + MAX_WINDOW if end is None else end
    if not start <= end <= start + MAX_WINDOW:
        raise Invalid(f"`end` is from `start` to {MAX_WINDOW} characters after it.")
    found = scope.documents.filter(pk=document_id).values_list(
        Substr("text", Value(start + 1), Value(end - start)), Length("text")
    )
    row = found.first()
    if row is None:
        raise NotFound("There is no such document among yours.")
    text, length = row
    return {"text": text, "start": start, "end": start + len(text), "length": length}


def passages(scope: Scope, document_id: UUID, *, after: int | None, limit: int) -> tuple[list[Any], int | None]:
    """A document's passages in their order, and the `after` of the next page (None: it was the last)."""
    readable(scope, document_id)
    found = scope.chunks.filter(document_id=document_id).order_by("position")
    if after is not None:
        found = found.filter(position__gt=after)
    page = list(found[: limit + 1])
    return page[:limit], page[limit - 1].position if len(page) > limit else None


def passage(scope: Scope, chunk_id: UUID) -> dict[str, Any]:
    """A passage with its document's name and the ids of its neighbours. Raises NotFound."""
    names = ("id", "collection_id", "document_id", "position", "text", "start", "end", "metadata")
    found = scope.chunks.filter(pk=chunk_id).values(*names, title=F("document__title"), source=F("document__source"))
    row = found.first()
    if row is None:
        raise NotFound("There is no such passage among yours.")
    place = row["position"]
    around = dict(
        scope.chunks.filter(document_id=row["document_id"], position__in=(place - 1, place + 1)).values_list(
            "position", "id"
        )
    )
    return row | {"previous": around.get(place - 1), "next": around.get(place + 1)}
