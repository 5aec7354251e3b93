"""REST for following documents: how far one is, as server-sent events; and lists that say when nothing has changed."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
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
from kernel.errors import Busy, ChainError, NotAuthenticated, NotFound
from vectorstore import documents
from vectorstore.rest.places import in_place, scope_of
from vectorstore.watching import Watch, Watcher, seen

router = Router(tags=["documents"])
#: Seconds of silence after which a stream says that it lives. As often, or more often if CHAT["REVALIDATE_SECONDS"] is
#: less, it looks whether its reader may still see the document, also while there is much to tell.
HEARTBEAT = 15.0
#: Seconds that a stream lasts; a browser's EventSource opens the next one by itself.
_LONGEST = 300.0
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_STREAM = {
    "responses": {
        200: {
            "description": "`state` events with state, done, total, error_code and reason; `gone` if it was deleted.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    }
}


@router.get(
    "/documents/{uuid:document_id}/events",
    summary="A document's states as server-sent events, until it is ready or has failed; 429 beyond 10 at once",
    openapi_extra=_STREAM,
)
async def watch_document(
    request: HttpRequest, document_id: UUID, workspace: UUID | None = None
) -> StreamingHttpResponse:
    row = await in_place(request, workspace, documents.readable, document_id)
    user_id = caller_of(request).user_id
    Watcher.current().check_room(user_id)
    watch = Watch(document_id, user_id, seen(row))
    return StreamingHttpResponse(_stream(request, workspace, watch), content_type="text/event-stream", headers=_HEADERS)


async def _stream(request: HttpRequest, workspace: UUID | None, watch: Watch) -> AsyncGenerator[bytes, None]:
    begins, watcher = monotonic(), Watcher.current()
    pause = min(HEARTBEAT, config().chat.revalidate_seconds)
    ends, looks = begins + _LONGEST, begins + pause
    try:
        # Not before its first piece is asked for: a stream that nobody reads is never closed.
        watcher.enter(watch)
        yield b"retry: 2000\n\n"
        while not watch.ended and monotonic() < ends:
            now = watch.take()
            if now is not None:
                yield b"event: state\ndata: %s\n\n" % msgspec.json.encode(asdict(now))
                if now.over:
                    return
            if watch.gone:
                yield b"event: gone\ndata: {}\n\n"
                return
            if not await watch.more(pause):
                yield b": still here\n\n"
            if monotonic() >= looks:
                looks = monotonic() + pause
                await _check(request, workspace, watch.document_id)
    except NotFound:
        yield b"event: gone\ndata: {}\n\n"
    except (Busy, NotAuthenticated):
        return  # several came at once, or the reader has signed out: who asks again is told
    finally:
        watcher.leave(watch)


async def _check(request: HttpRequest, workspace: UUID | None, document_id: UUID) -> None:
    """Raises NotAuthenticated for a reader who isn't signed in any more, NotFound for one who may not see it."""

    def look() -> None:
        scope = scope_of(_caller_now(request), workspace, of_object=True)
        with scope.wall():
            documents.readable(scope, document_id)

    try:
        await database.run(look)
    except (NotAuthenticated, NotFound):
        raise
    except ChainError:
        pass  # the database is away, which says nothing about rights


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
