"""REST for documents and their passages. Rules: vectorstore.documents.

Everything is JSON: what somebody uploaded never comes back as a page of its own.
"""

from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Field as Aliased
from ninja import Query, Router, Schema, Status
from pydantic import AwareDatetime, BaseModel, Field

from accounts.rest import caller_of, newest_first
from vectorstore import documents
from vectorstore.manager import VectorStoreManager
from vectorstore.models import Document, DocumentState
from vectorstore.rest.places import Limit, Line, Metadata, Ref, in_place
from vectorstore.rest.watching import is_known, tag_of, tagged
from vectorstore.scope import Scope

router = Router(tags=["documents"])
#: Within what PostgreSQL's integers hold.
Offset = Annotated[int, Query(ge=0, le=1_000_000_000)]


class DocumentChange(BaseModel, extra="forbid"):
    """What is named is changed; `metadata` as a whole."""

    title: Line = Field("", min_length=1, max_length=500)
    metadata: Metadata = {}


class DocumentOut(Schema):
    """`state`: queued, parsing, embedding (`done` of `total` passages), ready, or failed (`error_code`, `reason`)."""

    id: UUID
    collection: UUID = Aliased(alias="collection_id")
    title: str
    source: str
    content_type: str
    size: int
    state: DocumentState
    done: int
    total: int
    error_code: str
    reason: str
    chunk_count: int
    metadata: dict[str, Any]
    indexed_at: AwareDatetime | None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class DocumentPage(Schema):
    """Newest first. `next` goes into `before` for the following page; null on the last one."""

    documents: list[DocumentOut]
    next: UUID | None


class WindowOut(Schema):
    """Characters `start` to `end` of a text that has `length`."""

    text: str
    start: int
    end: int
    length: int


class ChunkOut(Schema):
    """A passage: characters `start` to `end` of its document's text. `page` from 1, where there are pages."""

    id: UUID
    position: int
    text: str
    start: int
    end: int
    page: int | None
    metadata: dict[str, Any]

    @staticmethod
    def resolve_page(row: Any) -> int | None:
        page = (row["metadata"] if isinstance(row, dict) else row.metadata).get("page")
        return page if isinstance(page, int) else None


class ChunkPage(Schema):
    """In their order. `next` goes into `after` for the following page; null on the last one."""

    chunks: list[ChunkOut]
    next: int | None


class ChunkFull(ChunkOut):
    """`previous` and `next`: the ids of the passages around it."""

    collection: UUID = Aliased(alias="collection_id")
    document_id: UUID
    title: str
    source: str
    previous: UUID | None
    next: UUID | None


@router.get(
    "/collections/{ref}/documents",
    response={200: DocumentPage, 304: None},
    summary="A collection's documents, or those in a state; 304 if the ETag of If-None-Match still holds",
)
async def list_documents(
    request: HttpRequest,
    response: HttpResponse,
    ref: Ref,
    *,
    state: DocumentState | None = None,
    workspace: UUID | None = None,
    limit: Limit = 30,
    before: UUID | None = None,
) -> HttpResponse | dict[str, Any]:
    def read(scope: Scope) -> tuple[str, dict[str, Any] | None]:
        found = documents.listed(scope, ref, state=state)
        if "If-None-Match" in request.headers:
            tag = tag_of(*newest_first(found.only("id", "updated_at"), limit=limit, before=before))
            if is_known(request, tag):
                return tag, None
        page, following = newest_first(found, limit=limit, before=before)
        return tag_of(page, following), {"documents": page, "next": following}

    tag, body = await in_place(request, workspace, read)
    if body is None:
        return tagged(HttpResponse(status=304), tag)
    tagged(response, tag)
    return body


@router.get("/documents/{uuid:document_id}", response=DocumentOut, summary="A document, and how far it is")
async def get_document(request: HttpRequest, document_id: UUID, workspace: UUID | None = None) -> Document:
    row: Document = await in_place(request, workspace, documents.readable, document_id)
    return row


@router.patch("/documents/{uuid:document_id}", response=DocumentOut, summary="Set a document's title or metadata")
async def change_document(
    request: HttpRequest, document_id: UUID, body: DocumentChange, workspace: UUID | None = None
) -> Document:
    values = body.model_dump(exclude_unset=True)
    row: Document = await in_place(request, workspace, documents.change, document_id, values)
    return row


@router.delete(
    "/documents/{uuid:document_id}", response={204: None}, summary="Delete a document; no search finds it from then on"
)
async def delete_document(request: HttpRequest, document_id: UUID, workspace: UUID | None = None) -> HttpResponse:
    await in_place(request, workspace, documents.delete, document_id)
    return HttpResponse(status=204)


@router.post(
    "/documents/{uuid:document_id}/retry",
    response={202: DocumentOut},
    summary="Try a failed document again; 404 unless it has failed, 409 if its bytes came in under another name since",
)
async def retry_document(request: HttpRequest, document_id: UUID, workspace: UUID | None = None) -> Status[Document]:
    row = await in_place(request, workspace, documents.writable, document_id)
    manager = VectorStoreManager.for_reader(row.workspace_id, caller_of(request).user_id)
    await manager.retry(document_id)
    fresh: Document = await manager.scope.run(documents.readable, document_id)
    return Status(202, fresh)


@router.get(
    "/documents/{uuid:document_id}/text", response=WindowOut, summary="A part of a document's text, for citations"
)
async def get_text(
    request: HttpRequest,
    document_id: UUID,
    *,
    start: Offset = 0,
    end: Annotated[int | None, Query(ge=0, le=1_000_020_000)] = None,
    workspace: UUID | None = None,
) -> dict[str, Any]:
    return await in_place(request, workspace, documents.window, document_id, start, end)


@router.get("/documents/{uuid:document_id}/chunks", response=ChunkPage, summary="A document's passages in their order")
async def list_chunks(
    request: HttpRequest,
    document_id: UUID,
    *,
    after: Annotated[int | None, Query(ge=0, le=1_000_000_000)] = None,
    limit: Limit = 30,
    workspace: UUID | None = None,
) -> dict[str, Any]:
    page, following = await in_place(request, workspace, documents.passages, document_id, after=after, limit=limit)
    return {"chunks": page, "next": following}


@router.get("/chunks/{uuid:chunk_id}", response=ChunkFull, summary="A passage, its document, and its neighbours")
async def get_chunk(request: HttpRequest, chunk_id: UUID, workspace: UUID | None = None) -> dict[str, Any]:
    return await in_place(request, workspace, documents.passage, chunk_id)
