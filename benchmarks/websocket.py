"""A WebSocket client that costs little, so that the client's core is never what is measured.

It trusts the server (no fragments, no extensions, a valid handshake) and masks with zeros.
"""

import asyncio
import base64
import os
from collections.abc import Callable
from typing import Any, Self

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Socket(asyncio.Protocol):
    """`await Socket.open(port, path, on_frame)`; `on_frame` gets each text frame as bytes."""

    def __init__(self, on_frame: Callable[[bytes], None]) -> None:
        self._on_frame = on_frame
        self._left = b""
        self._transport: Any = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, port: int, path: str, on_frame: Callable[[bytes], None]) -> Self:
        transport, socket = await asyncio.get_running_loop().create_connection(lambda: cls(on_frame), "127.0.0.1", port)
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        head += f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        transport.write(head.encode())
        await asyncio.wait_for(socket.opened, 30)
        return socket

    def send(self, frame: str) -> None:
        self._put(_TEXT, frame.encode())

    def close(self) -> None:
        if self._transport is not None:
            self._put(_CLOSE, b"\x03\xe8")
            self._transport.close()

    def _put(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        head = bytes([128 | opcode, 128 | size]) if size < 126 else bytes([128 | opcode, 254, size >> 8, size & 255])
        self._transport.write(head + b"\0\0\0\0" + payload)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("the server refused the socket"))

    def data_received(self, data: bytes) -> None:
        data = self._left + data if self._left else data
        if not self.opened.done():
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._left = head
                return
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                self.opened.set_exception(ConnectionError(head.decode(errors="replace")))
                return
            self.opened.set_result(None)
        self._left = data[self._take_frames(data) :]

    def _take_frames(self, data: bytes) -> int:
        """Hand on the whole frames; how many bytes they were."""
        at, size = 0, len(data)
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length >= 126:
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : start], "big")
            if size < start + length:
                break
            opcode = data[at] & 15
            if opcode == _TEXT:
                self._on_frame(data[start : start + length])
            elif opcode == _PING:
                self._put(_PONG, data[start : start + length])
            at = start + length
        return at
