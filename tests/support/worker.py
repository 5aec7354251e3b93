"""A Celery worker under test: a process of its own with pool children, as in production, its log kept."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import psutil

from django_chain.embedded.process import bound
from tests.support.measured import end_if_measured
from tests.support.server import ROOT


class Worker:
    """`with Worker(server_env) as worker: …`: inside, it takes tasks. `beat`: also does what is on the schedule."""

    def __init__(self, env: dict[str, str], *, concurrency: int = 1, beat: bool = False, folder: Path = ROOT) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="chain-worker-")
        self.log = Path(self._directory.name) / "log"
        self.env: dict[str, str] = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"} | env
        self._options = ["--concurrency", str(concurrency), "--hostname", f"w{uuid4().hex[:8]}@test"]
        if beat:
            self._options += ["--beat", "--schedule", str(Path(self._directory.name) / "schedule")]
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        #: Where its last start begins in the log.
        self._began = 0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self) -> Self:
        command = ["celery", "-A", "django_chain", "worker", *self._options, "--loglevel", "INFO"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with self.log.open("ab") as log:
            self._began = log.tell()
            # Bound to us: a run that is killed leaves no worker behind.
            self.process = subprocess.Popen(
                bound([sys.executable, "-m", *command, *quiet]), cwd=self._folder, env=self.env, stdout=log, stderr=log
            )
        return self

    def start(self) -> Self:
        self.launch()
        self.wait_ready()
        return self

    def wait_ready(self, deadline: float = 60) -> None:
        """Until it says that it takes tasks from the broker."""
        assert self.process is not None
        until = time.monotonic() + deadline
        while " ready." not in self.log.read_bytes()[self._began :].decode(errors="replace"):
            if self.process.poll() is not None:
                raise AssertionError(f"the worker ended with {self.process.returncode}:\n{self.log_text()}")
            if time.monotonic() > until:
                raise AssertionError(f"the worker was not ready in {deadline} s:\n{self.log_text()}")
            time.sleep(0.05)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        """The processes of its pool, and its beat."""
        return psutil.Process(self.pid).children(recursive=True)

    def kill(self) -> None:
        """End it and its children as a crash of the machine would: what they held is nobody's then."""
        assert self.process is not None
        children = self.children()
        self.process.kill()
        self.process.wait(10)
        assert psutil.wait_procs(children, timeout=10)[1] == []

    def stop(self, deadline: float = 40) -> int:
        """End it as a deploy would: it finishes its tasks; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            text = self.log_text()
            self.kill()
            raise AssertionError(f"the worker did not end in {deadline} s:\n{text}") from None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.process is not None and self.running:
            self.process.send_signal(signal.SIGCONT)
            end_if_measured(self.process)
            if self.running:
                self.kill()
        self._directory.cleanup()
