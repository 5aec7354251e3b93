"""People at sockets: one class for our protocol, one for the peers'; both `ask` and wait for the whole answer."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Self
from uuid import uuid4

import msgspec

from benchmarks.websocket import Socket

#: Seconds after which an answer counts as lost.
DEADLINE = 180


@dataclass(frozen=True)
class Order:
    """An answer to measure: tokens, tokens a second (0: without delay), and to whom it goes ("me" or "all")."""

    tokens: int
    rate: float = 0
    to: str = "me"


class _Row(msgspec.Struct):
    role: str = ""
    status: str = ""
    error_code: str = ""


class _Frame(msgspec.Struct):
    type: str
    text: str = ""
    message: _Row | str | None = None


_decode = msgspec.json.Decoder(_Frame).decode


class Client:
    """`frames` counts what came, `deltas` the frames that carried text; `on_text` gets their text."""

    def __init__(self, on_text: Callable[[str], None] | None = None) -> None:
        self.frames = self.deltas = 0
        self._on_text = on_text
        self._socket: Socket | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, port: int, path: str) -> Self:
        self._socket = await Socket.open(port, path, self._on_frame)
        return self

    def send(self, frame: object) -> None:
        assert self._socket is not None
        self._socket.send(json.dumps(frame))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def listen(self) -> "asyncio.Future[None]":
        """What is done when the next answer has ended, whoever asked for it."""
        self._done = asyncio.get_running_loop().create_future()
        return self._done

    def _on_frame(self, raw: bytes) -> None:
        raise NotImplementedError

    def _take(self, text: str) -> None:
        self.deltas += 1
        if self._on_text is not None:
            self._on_text(text)

    def _end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


class Peer(Client):
    async def ask(self, order: Order) -> None:
        self.listen()
        self.send(asdict(order))
        async with asyncio.timeout(DEADLINE):
            await self._done

    def _on_frame(self, raw: bytes) -> None:
        self.frames += 1
        frame = _decode(raw)
        if frame.type == "token":
            self._take(frame.text)
        elif frame.type == "end":
            self._end()


class Chat(Client):
    """A person with a token at a session of ours. Times of the last turn are kept, in seconds."""

    def __init__(self, on_text: Callable[[str], None] | None = None) -> None:
        super().__init__(on_text)
        self.sent = self.acked = self.ended = 0.0
        self._welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def enter(self, port: int, session_id: object, token: str) -> Self:
        await self.connect(port, f"/ws/chat/{session_id}/")
        self.send({"type": "hello", "seq": 0, "streams": {}, "token": token})
        async with asyncio.timeout(DEADLINE):
            await self._welcome
        return self

    async def ask(self, order: Order) -> None:
        self.listen()
        self.sent = monotonic()
        self.send({"type": "message.send", "id": str(uuid4()), "text": "go"})
        async with asyncio.timeout(DEADLINE):
            await self._done

    def _on_frame(self, raw: bytes) -> None:
        self.frames += 1
        frame = _decode(raw)
        match frame.type:
            case "delta":
                self._take(frame.text)
            case "message" if isinstance(frame.message, _Row):
                self._on_row(frame.message)
            case "ack":
                self.acked = monotonic()
            case "welcome":
                self._welcome.set_result(None)
            case "error" | "reset":
                self._fail(raw)

    def _on_row(self, row: _Row) -> None:
        if row.status == "failed":
            self._fail(f"the answer failed: {row.error_code}".encode())
        elif row.status == "complete" and row.role == "ASSISTANT":
            self.ended = monotonic()
            self._end()

    def _fail(self, what: bytes) -> None:
        waiting = self._done if self._welcome.done() else self._welcome
        if not waiting.done():
            waiting.set_exception(RuntimeError(what.decode()))
