"""One run in each DATA_DIR: two would start two servers on the same data."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from django_chain.embedded.errors import Misconfigured
from django_chain.embedded.places import Places

_ENDING = "ending"


class OnlyRun:
    """Holds DATA_DIR for this process while inside; the kernel lets go of it however we end.

    Waits for a run that is just ending (`waiting()` is called then, once). Raises Misconfigured if another one goes on.
    """

    def __init__(self, data_dir: Path, *, patience: float = 60, waiting: Callable[[], None] = lambda: None) -> None:
        self._root = Places(data_dir).root
        self._patience = patience
        self._waiting = waiting
        self._file: IO[str] | None = None

    def ending(self) -> None:
        """Tell a newcomer that waiting for us is worth it."""
        self._write(f"{os.getpid()} {_ENDING}")

    def __enter__(self) -> Self:
        self._root.mkdir(parents=True, exist_ok=True)
        self._file = (self._root / "lock").open("a+")
        until = time.monotonic() + self._patience
        told = False
        while not _locked(self._file):
            holder, _, state = self._read().partition(" ")
            if state != _ENDING or time.monotonic() > until:
                self._file.close()
                raise Misconfigured(
                    f"{self._root} is in use by another run (process {holder or 'unknown'}): stop that one, or set"
                    " DATA_DIR to another directory."
                )
            if not told:
                self._waiting()
                told = True
            time.sleep(0.1)
        self._write(str(os.getpid()))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self) -> str:
        return (self._root / "lock").read_text().strip()

    def _write(self, text: str) -> None:
        if self._file is not None and not self._file.closed:
            self._file.truncate(0)
            self._file.write(text)
            self._file.flush()


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
