"""A socket below the protocol: any bytes out, every frame and the close code in. No promise is checked here."""

import asyncio
import json
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

DEADLINE = 10.0


class Raw:
    """`async with Raw(url) as raw: await raw.hello(token)`."""

    def __init__(self, url: str, *, headers: list[tuple[str, str]] | None = None, origin: str | None = None) -> None:
        self.url = url
        self.headers = [*(headers or []), *([("Origin", origin)] if origin is not None else [])]
        self.received = 0
        self._socket: ClientConnection | None = None

    async def __aenter__(self) -> Self:
        # No bounds: what is not read may pile up here, and must not hold up the closing.
        self._socket = await connect(
            self.url,
            additional_headers=self.headers,
            compression=None,
            max_size=None,
            max_queue=None,
            open_timeout=DEADLINE,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.socket.close()

    @property
    def socket(self) -> ClientConnection:
        assert self._socket is not None
        return self._socket

    async def send(self, frame: Any) -> None:
        """A dict as JSON, text as a text frame, bytes as a binary one, a list of texts as fragments of one message."""
        await self.socket.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    def put(self, data: bytes) -> None:
        """Bytes on the wire as they are."""
        self.socket.transport.write(data)

    def put_text(self, payload: bytes, *, fin: bool = True) -> None:
        """A text frame with any payload."""
        self.put(Frame(Opcode.TEXT, payload, fin=fin).serialize(mask=True, extensions=[]))

    async def next(self, *types: str) -> dict[str, Any]:
        """The next frame of one of these types (of any, without)."""
        async with asyncio.timeout(DEADLINE):
            while True:
                frame: dict[str, Any] = json.loads(await self.socket.recv())
                self.received += 1
                if not types or frame["type"] in types:
                    return frame

    async def ask(self, frame: Any, *types: str) -> dict[str, Any]:
        """Send a frame; the answer to it."""
        await self.send(frame)
        return await self.next(*(types or ("ack", "error", "pong", "welcome", "reset")))

    async def hello(self, token: str | None = None, **more: Any) -> dict[str, Any]:
        return await self.ask({"type": "hello", **({"token": token} if token is not None else {}), **more})

    async def alive(self) -> bool:
        """Whether a ping is still answered."""
        return (await self.ask({"type": "ping"}, "pong"))["type"] == "pong"

    async def closed(self) -> int | None:
        """Read to the end; the close code."""
        async with asyncio.timeout(DEADLINE):
            try:
                while True:
                    await self.socket.recv()
            except ConnectionClosed:
                return self.socket.close_code
