"""REST for adding documents: files, a URL, or a text. Workers read them; a document's `state` says how far they are.

What was sent before is not read again: the same files may be sent any number of times, with another title or other
metadata each time.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import UUID

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest
from django.utils.encoding import force_str
from ninja import Schema, Status
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from accounts.rest import caller_of
from kernel.conf import config as settings
from kernel.errors import Invalid, NotFound, Refused, TooLarge
from vectorstore import collections, documents, uploads
from vectorstore.manager import VectorStoreManager
from vectorstore.rest import rates
from vectorstore.rest.documents import DocumentOut, router
from vectorstore.rest.places import Line, Metadata, Ref, in_place
from vectorstore.scope import Scope
from vectorstore.web_addresses import address_of

__all__ = ["router"]  # the documents' own: a path has all its methods in one router

Title = Annotated[Line, Field(max_length=500), AfterValidator(str.strip)]
_METADATA = TypeAdapter(Metadata)
_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": 100},
                        "paths": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "A path for each file, in their order, instead of its name.",
                        },
                        "metadata": {"type": "string", "description": "A JSON object, for each of the files."},
                    },
                }
            }
        },
    }
}


class UrlIn(BaseModel, extra="forbid"):
    """A public https address; it is the document's source."""

    url: Line = Field(min_length=1, max_length=1000)
    title: Title = ""
    metadata: Metadata = {}


class TextIn(BaseModel, extra="forbid"):
    """A text under a name of your own. It is read as UTF-8 text, or as Markdown."""

    source: Line = Field(min_length=1, max_length=1000)
    text: Line = Field(min_length=1)
    title: Title = ""
    markdown: bool = False
    metadata: Metadata = {}


class UploadOut(Schema):
    """`outcome`: queued, in_progress, unchanged, updated (its title or metadata); or refused, as `code` and `message`
    say.
    """

    document: DocumentOut | None
    name: str
    outcome: str
    code: str
    message: str


class UploadsOut(Schema):
    """An entry for each file, in their order."""

    documents: list[UploadOut]


@router.post(
    "/collections/{ref}/documents",
    response={202: UploadsOut},
    summary="Upload files, up to 100 of them; one that is refused doesn't keep the others",
    openapi_extra=_FORM,
)
async def upload_files(request: HttpRequest, ref: Ref, workspace: UUID | None = None) -> Status[dict[str, Any]]:
    place = await _place(request, workspace, ref, count=0)
    # Reading the form copies what may be many megabytes: not in the loop that serves everybody.
    files, names, metadata = await asyncio.to_thread(_form, request)
    await _take(request, len(files))
    made = [
        await _taken(place, caller_of(request).user_id, file, name, metadata)
        for file, name in zip(files, names, strict=True)
    ]
    return Status(202, {"documents": made})


@router.post("/collections/{ref}/documents/url", response={202: UploadsOut}, summary="Add what stands at a public URL")
async def add_url(request: HttpRequest, ref: Ref, body: UrlIn, workspace: UUID | None = None) -> Status[dict[str, Any]]:
    place = await _place(request, workspace, ref)
    address_of(body.url)
    upload = {"source": body.url, "url": body.url, "title": body.title, "metadata": body.metadata}
    return Status(202, {"documents": [await _submitted(place, caller_of(request).user_id, upload)]})


@router.post("/collections/{ref}/documents/text", response={202: UploadsOut}, summary="Add a text")
async def add_text(
    request: HttpRequest, ref: Ref, body: TextIn, workspace: UUID | None = None
) -> Status[dict[str, Any]]:
    place = await _place(request, workspace, ref)
    content = body.text.encode()
    if not content.strip():
        raise Invalid("The text is empty.")
    source = uploads.source_of(body.source)
    uploads.check_size(source, len(content))
    upload = {
        "source": source,
        "content": content,
        "name": "text.md" if body.markdown else "text.txt",
        "content_type": "text/markdown" if body.markdown else "text/plain; charset=utf-8",
        # Markdown names itself by its first heading.
        "title": body.title or ("" if body.markdown else source[:500]),
        "metadata": body.metadata,
    }
    return Status(202, {"documents": [await _submitted(place, caller_of(request).user_id, upload)]})


async def _place(
    request: HttpRequest, workspace: UUID | None, ref: UUID | str, *, count: int = 1
) -> tuple[UUID, UUID | str]:
    """Where to add documents; so many count for the caller's rate (0: there must be room for one). Raises Busy."""
    place = await in_place(request, workspace, _target, ref)
    await _take(request, max(count, 1), look=count == 0)
    return place


async def _take(request: HttpRequest, documents: int, *, look: bool = False) -> None:
    most = settings().vector_store.uploads_per_minute
    await rates.take("uploads", caller_of(request).user_id, most, amount=documents, look=look)


def _target(scope: Scope, ref: UUID | str) -> tuple[UUID, UUID | str]:
    """The workspace and the collection to add to: by its id, as its name may soon be another one's. The default one is
    made with its first document.
    """
    try:
        return scope.workspace_id, collections.writable(scope, ref).pk
    except NotFound:
        if ref != collections.DEFAULT:
            raise
        collections.check_member(scope)
        return scope.workspace_id, settings().vector_store.default_collection


def _form(request: HttpRequest) -> "tuple[Sequence[UploadedFile[Any]], list[str], dict[str, Any]]":
    """The files, a name for each, and the metadata for all. Raises Invalid, TooLarge."""
    files: list[UploadedFile[Any]] = request.FILES.getlist("files")
    if not files:
        raise Invalid("Send the files as multipart/form-data, each in a field `files`.")
    if len(files) > uploads.MAX_FILES:
        raise TooLarge(f"Send at most {uploads.MAX_FILES} files at once.")
    paths = request.POST.getlist("paths")
    if paths and len(paths) != len(files):
        raise Invalid("Send a field `paths` for each of the files, or none.")
    try:
        metadata = _METADATA.validate_python(json.loads(request.POST.get("metadata") or "{}"))
    except (ValueError, RecursionError, ValidationError) as error:
        raise Invalid("The field `metadata` holds a JSON object of moderate size and depth.") from error
    return files, paths or [file.name or "" for file in files], metadata


async def _taken(
    place: tuple[UUID, UUID | str], user_id: int, file: "UploadedFile[Any]", name: str, metadata: dict[str, Any]
) -> dict[str, Any]:
    try:
        source = uploads.source_of(name)
        uploads.check_size(source, file.size or 0)
        # Django takes the encoding out of the type, as bytes: a text may need it.
        content_type = "; charset=".join(force_str(each) for each in (file.content_type, file.charset) if each)
        content = await asyncio.to_thread(_read, file, source, content_type)
        upload = {"source": source, "name": source, "content_type": content_type, "metadata": metadata}
        return await _submitted(place, user_id, upload | {"content": content})
    except Refused as error:
        return {"document": None, "name": name, "outcome": "refused", "code": error.code, "message": error.message}


def _read(file: "UploadedFile[Any]", source: str, content_type: str) -> bytes:
    content: bytes = file.read()
    uploads.check_kind(content, source, content_type)
    return content


async def _submitted(place: tuple[UUID, UUID | str], user_id: int, upload: dict[str, Any]) -> dict[str, Any]:
    workspace_id, collection = place
    manager = VectorStoreManager.for_reader(workspace_id, user_id)
    made = await manager.submit(collection=collection, requested_by=user_id, **upload)
    try:
        row = await manager.scope.run(documents.readable, made.document_id)
    except NotFound:
        # It was taken in, and somebody deleted it meanwhile.
        row = None
    return {
        "document": row,
        "name": upload["source"],
        "outcome": made.outcome,
        "code": "",
        "message": made.reason,
    }
