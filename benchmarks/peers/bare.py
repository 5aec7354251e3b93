"""A bare ASGI socket: no framework, one JSON frame a token. What a token costs at least on this server in Python."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.pace import due_times, stamp

Send = Callable[[dict[str, Any]], Awaitable[None]]
_sockets: set[Send] = set()


async def application(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    _sockets.add(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            await _answer(json.loads(message["text"]), send)
    finally:
        _sockets.discard(send)


async def _answer(order: dict[str, Any], send: Send) -> None:
    async for due in due_times(order["tokens"], order["rate"]):
        text = stamp(due) if order["rate"] else "word "
        await _tell(order, send, json.dumps({"type": "token", "text": text}))
    await _tell(order, send, json.dumps({"type": "end"}))


async def _tell(order: dict[str, Any], send: Send, frame: str) -> None:
    for each in list(_sockets) if order["to"] == "all" else (send,):
        await each({"type": "websocket.send", "text": frame})
