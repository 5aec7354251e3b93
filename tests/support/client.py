"""A strict chat client that knows the protocol and nothing of the server.

It checks the promises while it talks: seq never goes back, text arrives without gap or overlap, what it shows is a
prefix of what is stored. It shares no code with the server or with the project's own client.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

DEADLINE = 20.0


class Client:
    """One person at one session; survives any number of sockets. `async with Client(url, token=…) as c`."""

    def __init__(self, url: str, *, token: str | None = None, headers: dict[str, str] | None = None) -> None:
        self.url = url
        self.token = token
        self.headers = headers or {}
        self.seq = 0
        self.messages: dict[str, dict[str, Any]] = {}
        #: Text shown of unfinished answers, as bytes.
        self.texts: dict[str, bytes] = {}
        self.frames: list[dict[str, Any]] = []
        self.arrivals: list[float] = []
        self.counts: Counter[str] = Counter()
        self.resets = 0
        self.close_code: int | None = None
        self.credit: int | None = None
        self._received = 0
        #: Bytes received and not yet acknowledged by `seen`.
        self._unseen = 0
        self._changed = asyncio.Condition()
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.disconnect()

    # Socket

    async def open_raw(self) -> ClientConnection:
        """Open the socket without a hello."""
        self._socket = await connect(
            self.url, additional_headers=self.headers, compression=None, max_size=None, open_timeout=DEADLINE
        )
        self.close_code = None
        self._received = self._unseen = 0
        self._reader = asyncio.create_task(self._read())
        return self._socket

    async def connect(self) -> dict[str, Any]:
        """Open a socket and resume; the welcome."""
        await self.open_raw()
        position = len(self.frames)
        await self.send_json(self.hello())
        return await self.wait_frame(lambda frame: frame["type"] in ("welcome", "error"), start=position)

    def hello(self) -> dict[str, Any]:
        pending = [key for key, row in self.messages.items() if row["status"] == "pending"]
        streams = {key: len(self.texts[key]) for key in pending if self.texts.get(key)}
        hello: dict[str, Any] = {"type": "hello", "seq": self.seq, "streams": streams}
        if self.token is not None:
            hello["token"] = self.token
        return hello

    async def disconnect(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await self._reader
        self._socket = self._reader = None

    async def cut(self) -> None:
        """Lose the connection without a goodbye."""
        assert self._socket is not None
        self._socket.transport.abort()
        assert self._reader is not None
        await self._reader
        self._socket = None

    def check(self) -> None:
        """Raise what the reader found to be a broken promise, if it did."""
        if self._reader is not None and self._reader.done() and not self._reader.cancelled():
            self._reader.result()

    async def send_json(self, frame: dict[str, Any]) -> None:
        await self.send_raw(json.dumps(frame))

    async def send_raw(self, frame: str | bytes) -> None:
        assert self._socket is not None
        await self._socket.send(frame)

    async def _read(self) -> None:
        assert self._socket is not None
        try:
            async for raw in self._socket:
                assert isinstance(raw, str)
                self._unseen += len(raw.encode())
                await self._on_frame(json.loads(raw))
        except ConnectionClosed:
            pass
        finally:
            self.close_code = self._socket.close_code
            async with self._changed:
                self._changed.notify_all()

    async def _on_frame(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        self.arrivals.append(time.monotonic())
        self.counts[frame["type"]] += 1
        self._received += 1
        handler = getattr(self, f"_on_{frame['type']}", None)
        if handler is not None:
            handler(frame)
        if self.credit is not None and self._unseen > self.credit // 4:
            self._unseen = 0
            await self.send_json({"type": "seen", "frames": self._received})
        async with self._changed:
            self._changed.notify_all()

    def _on_welcome(self, frame: dict[str, Any]) -> None:
        self.credit = frame["limits"]["credit"]

    def _on_message(self, frame: dict[str, Any]) -> None:
        row = frame["message"]
        assert frame["seq"] == row["seq"]
        assert frame["seq"] > self.seq, f"seq went from {self.seq} to {frame['seq']}"
        self.seq = frame["seq"]
        shown = self.texts.pop(row["id"], b"")
        if row["status"] == "pending":
            self.texts[row["id"]] = b""
        else:
            final = row["content"].encode()
            assert final.startswith(shown), f"shown {shown[-60:]!r} is no prefix of the stored text {final[:80]!r}"
        self.messages[row["id"]] = row

    def _on_delta(self, frame: dict[str, Any]) -> None:
        key, data = frame["message_id"], frame["text"].encode()
        assert key in self.texts, "a delta for an answer that isn't pending here"
        assert frame["offset"] == len(self.texts[key]), f"gap: at {len(self.texts[key])}, got {frame['offset']}"
        assert frame["end"] == frame["offset"] + len(data)
        self.texts[key] += data

    def _on_reset(self, frame: dict[str, Any]) -> None:
        self.resets += 1
        self.seq = 0
        self.messages.clear()
        self.texts.clear()

    # Talking

    async def wait(self, condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
        """Wait until `condition()` is truthy; its value."""
        result: Any = None

        def holds() -> bool:
            nonlocal result
            result = condition()
            return bool(result) or (self._reader is not None and self._reader.done())

        try:
            async with asyncio.timeout(deadline), self._changed:
                await self._changed.wait_for(holds)
        except TimeoutError:
            raise AssertionError(f"waited {deadline} s in vain; last frames: {self.frames[-4:]}") from None
        if not result:
            if self._reader is not None and self._reader.done() and not self._reader.cancelled():
                self._reader.result()  # a broken promise, if that ended the reader
            raise AssertionError(f"the socket closed ({self.close_code}) while waiting; last: {self.frames[-3:]}")
        return result

    async def wait_frame(
        self, match: Callable[[dict[str, Any]], bool], *, start: int = 0, deadline: float = DEADLINE
    ) -> dict[str, Any]:
        found: dict[str, Any] = await self.wait(
            lambda: next((frame for frame in self.frames[start:] if match(frame)), None), deadline
        )
        return found

    async def send(self, text: str, *, id: str | None = None) -> dict[str, Any]:
        """Send a message; its ack, or the error."""
        key = id or str(uuid4())
        start = len(self.frames)
        await self.send_json({"type": "message.send", "id": key, "text": text})
        return await self.wait_frame(
            lambda frame: frame["type"] in ("ack", "error") and frame.get("id") == key, start=start
        )

    async def stop(self, answer_id: str) -> dict[str, Any]:
        start = len(self.frames)
        await self.send_json({"type": "turn.stop", "message_id": answer_id})
        return await self.wait_frame(
            lambda frame: frame["type"] in ("ack", "error") and frame.get("id") == answer_id, start=start
        )

    async def answer(self, answer_id: str, deadline: float = DEADLINE) -> dict[str, Any]:
        """The finished answer."""
        row: dict[str, Any] = await self.wait(
            lambda: (row := self.messages.get(answer_id)) and row["status"] != "pending" and row, deadline
        )
        return row

    async def ask(self, text: str, deadline: float = DEADLINE) -> dict[str, Any]:
        ack = await self.send(text)
        assert ack["type"] == "ack", ack
        return await self.answer(ack["answer_id"], deadline)

    async def shows(self, answer_id: str, text: str, deadline: float = DEADLINE) -> None:
        """Wait until the streamed text of an answer has `text` in it."""
        await self.wait(lambda: text.encode() in self.texts.get(answer_id, b""), deadline)

    async def closed(self, deadline: float = DEADLINE) -> int | None:
        """Wait for the end of the socket; its close code."""
        assert self._reader is not None
        await asyncio.wait_for(asyncio.shield(self._reader), deadline)
        return self.close_code
