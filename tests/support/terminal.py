"""`manage.py chat` as people run it: a process, with its output kept as it comes."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.server import ROOT

_SESSION = re.compile(r"^Session ([0-9a-f-]{36})$", re.MULTILINE)


class Terminal:
    """`with Terminal(env, "question", "--url", …) as terminal: terminal.ended()`."""

    def __init__(self, env: dict[str, str], *arguments: str, stdin: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="chain-terminal-")
        self._out, self._err = Path(self._folder.name, "out"), Path(self._folder.name, "err")
        self._env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"} | env
        self._arguments = arguments
        self._stdin = stdin

    def __enter__(self) -> Self:
        command = [sys.executable, "manage.py", "chat", *self._arguments]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self._env, stdin=subprocess.PIPE, stdout=out, stderr=err
            )
        assert self.process.stdin is not None
        self.process.stdin.write(self._stdin.encode())
        self.process.stdin.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        trouble = self.err
        self._folder.cleanup()
        assert "Traceback" not in trouble, trouble

    @property
    def out(self) -> str:
        return self._out.read_bytes().decode()

    @property
    def err(self) -> str:
        return self._err.read_bytes().decode()

    @property
    def session_id(self) -> str:
        """What the command said for those who want to go on."""
        self.until(lambda: _SESSION.search(self.err))
        found = _SESSION.search(self.err)
        assert found
        return found[1]

    def until(self, fact: Callable[[], Any], *, deadline: float = 20) -> None:
        end = time.monotonic() + deadline
        while not fact():
            assert time.monotonic() < end, f"not so within {deadline} s; out: {self.out!r}; err: {self.err!r}"
            assert self.process.poll() is None or fact(), f"it ended; out: {self.out!r}; err: {self.err!r}"
            time.sleep(0.02)

    def shows(self, text: str, *, deadline: float = 20) -> None:
        self.until(lambda: text in self.out, deadline=deadline)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def ended(self, *, deadline: float = 30) -> int:
        """Its exit code."""
        return self.process.wait(deadline)
