"""A WebSocket client that reads nothing until it is told to, over a socket with a tiny receive buffer."""

import json
import socket
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri


class SlowReader:
    """`with closing(SlowReader(url)) as slow:` … `open()`, `read_to_the_end()`. Blocking: use these in a thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._protocol = ClientProtocol(parse_uri(url), max_size=None)
        self._socket = socket.socket()
        # Before connecting: the window is settled with the connection.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.bytes_read = 0
        self.frames: list[dict[str, Any]] = []

    def open(self) -> None:
        where = urlsplit(self._url)
        self._socket.settimeout(10)
        self._socket.connect((where.hostname, where.port))
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        while self._protocol.state.name == "CONNECTING":
            self._receive()

    def close(self) -> None:
        self._socket.close()

    def hello(self, token: str) -> None:
        self._protocol.send_text(json.dumps({"type": "hello", "token": token}).encode())
        self._flush()

    def read_to_the_end(self, deadline: float = 20) -> int | None:
        """Read until the server closes; its close code, None if it gave none."""
        until = time.monotonic() + deadline
        self._socket.settimeout(deadline)
        while time.monotonic() < until and self._receive():
            pass
        return self._protocol.close_rcvd.code if self._protocol.close_rcvd else None

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except (TimeoutError, ConnectionError):
            return False
        self.bytes_read += len(data)
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT and event.fin:
                self.frames.append(json.loads(bytes(event.data)))
        self._flush()
        return bool(data)

    def _flush(self) -> None:
        for piece in self._protocol.data_to_send():
            # A server that has closed takes no answer to that any more; what it said before can still be read.
            with suppress(ConnectionError):
                self._socket.sendall(piece)
