"""A server process under test: uvicorn or Daphne, on a free port, with its log kept."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2 as httpx

from django_chain.embedded.process import bound
from tests.support.measured import end_if_measured

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`with Server(env) as server: server.http("/readyz")`."""

    def __init__(self, env: dict[str, str], *, kind: str = "uvicorn", wait_ready: bool = True) -> None:
        self.port = free_port()
        self.kind = kind
        self.log = Path(tempfile.mkstemp(prefix=f"chain-{kind}-", suffix=".log")[1])
        self._env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONUNBUFFERED": "1"} | env
        self._wait = wait_ready
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def socket_url(self, session_id: object) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/chat/{session_id}/"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self) -> Self:
        uvicorn = ["uvicorn", "django_chain.asgi:application", "--host", "127.0.0.1", "--port", str(self.port)]
        options = ["--ws", "websockets-sansio", "--loop", "uvloop", "--ws-max-size", "1048576", "--no-access-log"]
        options += ["--ws-per-message-deflate", "false", "--timeout-graceful-shutdown", "10"]
        daphne = ["django_chain.daphne", "-b", "127.0.0.1", "-p", str(self.port), "django_chain.asgi:application"]
        command = [*uvicorn, *options] if self.kind == "uvicorn" else daphne
        with self.log.open("ab") as log:
            # Bound to us: a run that is killed leaves no server behind.
            self.process = subprocess.Popen(
                bound([sys.executable, "-m", *command]), cwd=ROOT, env=self._env, stdout=log, stderr=log
            )
        return self

    def start(self) -> Self:
        self.launch()
        if self._wait:
            self.wait_ready()
        return self

    def wait_ready(self, deadline: float = 60) -> None:
        assert self.process is not None
        until = time.monotonic() + deadline
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log_text()}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"the server was not ready in {deadline} s:\n{self.log_text()}")

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def ended(self, deadline: float = 15) -> int:
        """Wait for its end; the exit code."""
        assert self.process is not None
        return self.process.wait(deadline)

    def stop(self, deadline: float = 40) -> int:
        """End it as a deploy would; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the server did not end in {deadline} s:\n{self.log_text()}") from None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            end_if_measured(self.process)
            self.process.kill()
            self.process.wait(10)
        self.log.unlink(missing_ok=True)


def rest(server: Server, token: str, method: str, path: str, **more: Any) -> Any:
    """A REST call with a bearer token; the JSON, after a check of the status."""
    headers = {"Authorization": f"Bearer {token}"}
    response = httpx.request(method, f"{server.url}/api/v1{path}", headers=headers, timeout=10, **more)
    assert response.status_code < 300, (response.status_code, response.text)
    return response.json()
