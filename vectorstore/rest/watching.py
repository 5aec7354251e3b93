"""REST for following documents: how far they are, as server-sent events; lists that say when nothing has changed."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from time import monotonic
from typing import Any
from uuid import UUID

import msgspec
from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils.http import parse_etags
from ninja import Router

from accounts import access
from accounts.access import Caller
from accounts.rest import caller_of
from kernel import database
from kernel.conf import config
from kernel.errors import Busy, DatabaseUnavailable, Forbidden, NotAuthenticated, NotFound
from vectorstore import collections, documents
from vectorstore.rest.places import Ref, in_place, scope_of
from vectorstore.scope import Scope
from vectorstore.watching import CollectionWatch, DocumentWatch, Watch, Watcher, seen

router = Router(tags=["documents"])
#: Finds what is watched for a reader. Raises NotFound.
Readable = Callable[[Scope, UUID], Any]
_json = msgspec.json.encode
#: Seconds of silence after which a stream says that it lives. As often, or more often if CHAT["REVALIDATE_SECONDS"] is
#: less, it looks whether its reader may still see what it is about, also while there is much to tell.
HEARTBEAT = 15.0
#: Seconds that a stream lasts; a browser's EventSource opens the next one by itself.
_LONGEST = 300.0
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def _described(what: str) -> dict[str, Any]:
    content = {"text/event-stream": {"schema": {"type": "string"}}}
    return {"responses": {200: {"description": what, "content": content}}}


@router.get(
    "/documents/{uuid:document_id}/events",
    summary="A document's states as server-sent events, until it is ready or has failed; 429 beyond 10 at once",
    openapi_extra=_described(
        "`state` events with state, done, total, error_code and reason; `gone` if it was deleted."
    ),
)
async def watch_document(
    request: HttpRequest, document_id: UUID, workspace: UUID | None = None
) -> StreamingHttpResponse:
    row = await in_place(request, workspace, documents.readable, document_id)
    watch = DocumentWatch(document_id, caller_of(request).user_id, seen(row))
    return _answer(request, workspace, watch, documents.readable)


@router.get(
    "/collections/{ref}/documents/events",
    summary="The states of a collection's documents as server-sent events, until none is on the way; 429 beyond 10",
    openapi_extra=_described(
        "`state` events as a document's, each with its id as `document`, of those that are on the way or were added in "
        "the last five minutes; `gone` with the id of one that was deleted, without one if it is the collection; "
        "`settled` when no document is on the way."
    ),
)
async def watch_collection(request: HttpRequest, ref: Ref, workspace: UUID | None = None) -> StreamingHttpResponse:
    row = await in_place(request, workspace, collections.readable, ref)
    watch = CollectionWatch(row.pk, caller_of(request).user_id)
    return _answer(request, workspace, watch, collections.readable)


def _answer(request: HttpRequest, workspace: UUID | None, watch: Watch, readable: Readable) -> StreamingHttpResponse:
    """Raises Busy, as HTTP does, for one too many."""
    Watcher.current().check_room(watch.user_id)
    told = _stream(request, workspace, watch, readable)
    return StreamingHttpResponse(told, content_type="text/event-stream", headers=_HEADERS)


async def _stream(
    request: HttpRequest, workspace: UUID | None, watch: Watch, readable: Readable
) -> AsyncGenerator[bytes, None]:
    begins, watcher = monotonic(), Watcher.current()
    pause = min(HEARTBEAT, config().chat.revalidate_seconds)
    ends, looks = begins + _LONGEST, begins + pause
    try:
        # Not before its first piece is asked for: a stream that nobody reads is never closed.
        watcher.enter(watch)
        yield b"retry: 2000\n\n"
        while not watch.ended and monotonic() < ends:
            if told := watch.take():
                yield b"".join(b"event: %s\ndata: %s\n\n" % (name.encode(), _json(values)) for name, values in told)
            if watch.over:
                return
            if not await watch.more(pause):
                yield b": still here\n\n"
            if monotonic() >= looks:
                looks = monotonic() + pause
                await _check(request, workspace, watch.of, readable)
    except (NotFound, Forbidden):
        yield b"event: gone\ndata: {}\n\n"
    except (Busy, NotAuthenticated):
        return  # several came at once, or the reader has signed out: who asks again is told
    finally:
        watcher.leave(watch)


async def _check(request: HttpRequest, workspace: UUID | None, of: UUID, readable: Readable) -> None:
    """Raises NotAuthenticated for a reader who isn't signed in any more, NotFound or Forbidden for one who may not see
    it. A database that is away says nothing about rights.
    """

    def look() -> None:
        scope = scope_of(_caller_now(request), workspace, of_object=True)
        with scope.wall():
            readable(scope, of)

    with suppress(DatabaseUnavailable, Busy):
        await database.run(look)


def _caller_now(request: HttpRequest) -> Caller:
    """The caller, looked up again by what they came with (database work). Raises NotAuthenticated."""
    if caller_of(request).by_token:
        return access.from_token(request.headers.get("Authorization", "").partition(" ")[2])
    return access.from_session_key(request.COOKIES.get(settings.SESSION_COOKIE_NAME, ""))


def tag_of(page: Sequence[Any], following: UUID | None) -> str:
    """An ETag of a page of rows: it changes when one of them does, or others take their places."""
    told = "|".join(f"{row.pk} {row.updated_at.isoformat()}" for row in page)
    return f'W/"{blake2b(f"{told}|{following}".encode(), digest_size=16).hexdigest()}"'


def is_known(request: HttpRequest, tag: str) -> bool:
    """Whether the caller has what this tag stands for."""
    known = {each.removeprefix("W/") for each in parse_etags(request.headers.get("If-None-Match", ""))}
    return tag.removeprefix("W/") in known


def tagged(response: HttpResponse, tag: str) -> HttpResponse:
    """The answer with its tag; caches may keep it for its reader, and ask each time."""
    response["ETag"] = tag
    response["Cache-Control"] = "private, no-cache"
    return response
