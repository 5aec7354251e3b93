"""Daphne with typed closes: `python -m django_chain.daphne …`, the same options as `daphne`.

By default Daphne drops the connection on a broken or oversized frame, and the client sees a bare 1006; here it gets the
WebSocket's own code (1007, 1009) first.
"""

from typing import Any

import daphne.server
from daphne.cli import CommandLineInterface
from daphne.ws_protocol import WebSocketFactory


class TypedCloseFactory(WebSocketFactory):  # type: ignore[misc]  # Daphne ships no types
    def setProtocolOptions(self, **options: Any) -> None:  # noqa: N802  Daphne's name
        super().setProtocolOptions(**options, failByDrop=False)


def main() -> None:
    # Daphne has no setting for this, and makes its factory by this name.
    daphne.server.WebSocketFactory = TypedCloseFactory
    CommandLineInterface.entrypoint()


if __name__ == "__main__":
    main()
