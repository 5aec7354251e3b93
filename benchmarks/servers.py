"""A server process under measurement, on a core of its own. All run on the same uvicorn with the same options."""

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2 as httpx

from benchmarks import machine
from benchmarks.report import progress
from benchmarks.stage import Stage
from django_chain.embedded.process import Process

_OPTIONS = [
    *("--host", "127.0.0.1", "--ws", "websockets-sansio", "--loop", "uvloop", "--ws-max-size", "1048576"),
    *("--ws-per-message-deflate", "false", "--no-access-log", "--log-level", "warning"),
]

OURS, BARE, STOCK = "Django Chain", "bare uvicorn socket", "Channels, stock"


class Server:
    """`name` is the table's."""

    def __init__(self, stage: Stage, name: str, app: str, env: Mapping[str, str]) -> None:
        self.name = name
        self.port = _free_port()
        self._log = stage.directory / f"{app.partition(':')[0]}-{self.port}.log"
        self._process = Process(
            name,
            [sys.executable, "-m", "uvicorn", app, "--port", str(self.port), *_OPTIONS],
            log=self._log,
            pid_file=self._log.with_suffix(".pid"),
            env=os.environ | stage.variables | dict(env),
            patience=3,
        )

    @property
    def pid(self) -> int:
        pid = self._process.pid
        if pid is None:
            raise RuntimeError(f"{self.name} has ended. {self._process.log_tail(40)}")
        return pid

    def start(self) -> None:
        self._process.start()
        machine.pin(self.pid, machine.SERVER_CORE)
        self._process.wait_ready(self._ready if self.name == OURS else self._listens, deadline=60)

    def stop(self) -> None:
        self._process.kill()

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        return machine.cpu_seconds(self.pid)

    def memory(self) -> int:
        return machine.memory_bytes(self.pid)

    def _ready(self) -> bool:
        """Also warm: what the first turn would load is no part of what is measured."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def ours(stage: Stage, *, provider: str = "fake", **model: Any) -> Server:
    """The whole project, with a model of these options."""
    env = {"BENCH_PROVIDER": provider, "BENCH_MODEL": json.dumps(model)}
    return Server(stage, OURS, "django_chain.asgi:application", env)


def bare(stage: Stage) -> Server:
    return Server(stage, BARE, "benchmarks.peers.bare:application", {})


def stock(stage: Stage, *, name: str = STOCK, layer: str = "") -> Server:
    return Server(stage, name, "benchmarks.peers.stock:application", {"LAYER": layer} if layer else {})


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    with ExitStack() as stack:
        for server in servers:
            progress(f"starting: {server.name}")
            stack.callback(server.stop)
            server.start()
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
