"""Where an embedded service keeps its files: data, logs, pid files and sockets of one DATA_DIR."""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from django_chain.embedded.account import Account
from django_chain.embedded.errors import Misconfigured

#: A socket's path must fit into 104 bytes on macOS and 108 on Linux; the longest name of ours takes 20.
_MAX_DIRECTORY = 80


@dataclass(frozen=True)
class Places:
    """The directories of one DATA_DIR. Made on first use."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root.expanduser().resolve())

    def log(self, name: str) -> Path:
        return self._made("logs") / f"{name}.log"

    def pid_file(self, name: str) -> Path:
        return self._made("run") / f"{name}.json"

    def data(self, name: str) -> Path:
        """Where `name` keeps its data; only the parent is made, the service makes the directory itself."""
        self.root.mkdir(parents=True, exist_ok=True)
        return self.root / name

    def sockets(self, name: str, account: Account | None) -> Path:
        """A private directory for sockets of `name`, owned by `account`; in the temporary one if DATA_DIR is long."""
        directory = self._made("run") / name
        if len(os.fsencode(directory)) > _MAX_DIRECTORY:
            mark = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
            directory = Path(tempfile.gettempdir()) / f"chain-{os.geteuid()}-{mark}-{name}"
        if len(os.fsencode(directory)) > _MAX_DIRECTORY:
            raise Misconfigured(f"DATA_DIR and TMPDIR are both too long for a socket ({directory}): shorten one.")
        directory.mkdir(mode=0o700, exist_ok=True)
        _check_private(directory, account)
        if account is not None:
            account.give(directory)
        return directory

    def _made(self, name: str) -> Path:
        directory = self.root / name
        directory.mkdir(parents=True, exist_ok=True)
        return directory


def _check_private(directory: Path, account: Account | None) -> None:
    """In a shared temporary directory somebody else may have made the name before us."""
    found = directory.lstat()
    owners = {os.geteuid()} | ({account.uid} if account else set())
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners or found.st_mode & 0o077:
        raise Misconfigured(f"{directory} is not a private directory of ours: remove it, or set a shorter DATA_DIR.")
