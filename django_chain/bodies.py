"""A bound on what one HTTP request may send. Django keeps a whole body on disk before it looks at the request."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kernel.errors import TooLarge

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


def bounded(app: App, most: Callable[[], int]) -> App:
    """`app` for requests of at most `most()` bytes; a longer one is answered 413 as soon as it is.

    Bytes are counted as they come: a length that a client declares may be wrong, or missing.
    """

    async def serve(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        limit, seen, refused = most(), 0, False

        async def counted() -> Message:
            nonlocal seen, refused
            message = await receive()
            seen += len(message.get("body", b""))
            if seen <= limit:
                return message
            if not refused:
                refused = True
                await _refuse(send)
            # For Django the client has gone away: it drops what it has of the body.
            return {"type": "http.disconnect"}

        if _declared(scope) > limit:
            await _refuse(send)
        else:
            await app(scope, counted, send)

    return serve


def _declared(scope: dict[str, Any]) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


async def _refuse(send: Send) -> None:
    body = json.dumps(
        {"code": TooLarge.code, "message": "The request is too large; send fewer files at once."}
    ).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        # The rest of the body is not read.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
