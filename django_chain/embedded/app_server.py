"""The application server (uvicorn) as the demo's child."""

import http.client
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from django_chain.embedded import process
from django_chain.embedded.errors import Misconfigured, StartError
from django_chain.embedded.places import Places

HOST = "127.0.0.1"
DEFAULT_PORT = 8000
#: Seconds that uvicorn gives to open requests; after them it is ended harder.
GRACE = 30
_MARK = "X-Demo-Run"
_ROOT = Path(__file__).resolve().parents[2]


def choose_port(asked: str) -> int:
    """The port to serve on: `asked` if it is free, without one 8000 or the next free. Raises Misconfigured."""
    if asked:
        if not asked.isdecimal() or not 0 < int(asked) < 65_536:
            raise Misconfigured(f"PORT is {asked!r}: it must be a number from 1 to 65535.")
        if not is_free(int(asked)):
            raise Misconfigured(f"Port {asked} is taken or not allowed: set PORT to another one.")
        return int(asked)
    for port in range(DEFAULT_PORT, DEFAULT_PORT + 50):
        if is_free(port):
            return port
    raise Misconfigured(f"Ports {DEFAULT_PORT} to {DEFAULT_PORT + 49} are all taken: set PORT to a free one.")


class AppServer:
    """uvicorn with this project on a loopback port."""

    def __init__(self, data_dir: Path, *, port: int, variables: Mapping[str, str]) -> None:
        places = Places(data_dir)
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self._mark = secrets.token_hex(8)
        self._process = process.Process(
            "The application server",
            [sys.executable, "-m", "uvicorn", "django_chain.asgi:application", *self._options()],
            log=places.log("server"),
            pid_file=places.pid_file("server"),
            env=os.environ | dict(variables),
            cwd=_ROOT,
            stop_signals=(signal.SIGTERM, signal.SIGKILL),
            patience=GRACE + 5,
        )

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.running

    def start(self) -> str:
        """Start it and return its URL once it is ready to serve. Raises StartError."""
        self._process.start()
        try:
            self._process.wait_ready(self._ready, deadline=90, every=0.2)
        except StartError:
            self._process.kill()  # it has served nobody
            raise
        return self.url

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        self._process.kill()

    def log_tail(self) -> str:
        return self._process.log_tail()

    def _options(self) -> list[str]:
        return [
            *("--host", HOST, "--port", str(self.port)),
            *("--ws", "websockets-sansio", "--loop", "uvloop"),
            *("--ws-max-size", "1048576", "--ws-per-message-deflate", "false"),
            *("--timeout-graceful-shutdown", str(GRACE), "--no-access-log"),
            *("--header", f"{_MARK}:{self._mark}"),
        ]

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        else:
            if response.getheader(_MARK) != self._mark:
                raise StartError(f"Another program was quicker to take port {self.port}: set PORT to another one.")
            return response.status == 200
        finally:
            connection.close()


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As the server will: a port whose last connections are still fading is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
