"""The process that serves the small model, seen from outside: start, wait, stop."""

import os
import secrets
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from django_chain.embedded import model, process
from django_chain.embedded.places import Places

_ROOT = Path(__file__).resolve().parents[2]


class ModelServer:
    """An OpenAI-compatible server on a loopback port. `with ModelServer(directory) as server: server.url, server.key`.

    `url` is the base URL, known once it runs; a restart may change it. Only who has `key` is answered.
    """

    def __init__(self, data_dir: Path) -> None:
        self._places = Places(data_dir)
        self._address = self._places.pid_file("model-address")
        self._process: process.Process | None = None
        self.key = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        return self._address.read_text()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> str:
        """Load the model and return the base URL. Raises Misconfigured or StartError."""
        if not self.running:
            model.weights()
            self._address.unlink(missing_ok=True)
            self._process = self._server()
            self._process.start()
            self._process.wait_ready(self._address.exists, deadline=120)
        return self.url

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._address.unlink(missing_ok=True)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def log_tail(self) -> str:
        return self._process.log_tail() if self._process else ""

    def _server(self) -> process.Process:
        return process.Process(
            "The model server",
            [sys.executable, "-m", "django_chain.embedded.model", "--address-file", self._address],
            log=self._places.log("model"),
            pid_file=self._places.pid_file("model"),
            env=os.environ | {model.KEY_VARIABLE: self.key},
            cwd=_ROOT,
            stop_signals=(signal.SIGTERM, signal.SIGKILL),
            patience=5,
        )
