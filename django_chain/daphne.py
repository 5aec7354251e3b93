"""Daphne with typed closes: `python -m django_chain.daphne …`, the same options as `daphne`.

By default Daphne drops the connection on a broken or oversized frame, and the client sees a bare 1006; here it gets the
WebSocket's own code (1007, 1009) first. And it refuses to send 1012, which is how we say that the server restarts.
"""

from typing import Any

import daphne.server
from autobahn.exception import Disconnected
from daphne.cli import CommandLineInterface
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol


class TypedCloseProtocol(WebSocketProtocol):  # type: ignore[misc]  # Daphne ships no types
    def serverSend(self, content: Any, binary: bool = False) -> None:  # noqa: N802  Daphne's name
        try:
            super().serverSend(content, binary)
        except Disconnected as error:  # a RuntimeError; ASGI wants an OSError for a client that has just gone
            raise ConnectionAbortedError from error

    def serverClose(self, code: int | None = None) -> None:  # noqa: N802  Daphne's name
        # sendClose allows an application only 1000 and 3000 to 4999.
        self.sendCloseFrame(code=1000 if code is None else code)


class TypedCloseFactory(WebSocketFactory):  # type: ignore[misc]  # the same
    protocol = TypedCloseProtocol

    def setProtocolOptions(self, **options: Any) -> None:  # noqa: N802  Daphne's name
        # A client that stalls learns why it was closed once it reads again; by default it has a second for that.
        super().setProtocolOptions(**options, failByDrop=False, closeHandshakeTimeout=60)


def main() -> None:
    # Daphne has no setting for this, and makes its factory by this name.
    daphne.server.WebSocketFactory = TypedCloseFactory
    CommandLineInterface.entrypoint()


if __name__ == "__main__":
    main()
