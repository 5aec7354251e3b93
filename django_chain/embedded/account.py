"""Who runs a server when we are root: PostgreSQL refuses to be root, and no server of ours needs to be."""

import os
import pwd
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from django_chain.embedded.errors import Misconfigured

_CANDIDATES = ("nobody", "daemon", "www-data", "bin")


@dataclass(frozen=True)
class Account:
    """An unprivileged user of this machine."""

    name: str
    uid: int
    gid: int

    def give(self, path: Path) -> None:
        """Make this account the owner of `path`."""
        os.chown(path, self.uid, self.gid)

    def can_enter(self, directory: Path) -> bool:
        """Whether every directory from the root down to `directory` lets this account pass."""
        return all(self._passes(step.stat()) for step in (directory, *directory.parents))

    def _passes(self, found: os.stat_result) -> bool:
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        if found.st_gid == self.gid:
            return bool(found.st_mode & stat.S_IXGRP)
        return bool(found.st_mode & stat.S_IXOTH)


def for_server(data: Path) -> Account | None:
    """The account for a server that keeps its files in `data`: None (ourselves) unless we are root.

    The owner of data that exists already stays its owner. Raises Misconfigured if root finds no account to use, or if
    the data is another user's and we are not root.
    """
    owner = data.stat().st_uid if data.exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise Misconfigured(
                f"{data} belongs to another user (uid {owner}): run this as that user (or as root, if root made it),"
                " or set DATA_DIR to another directory."
            )
        return None
    if owner:
        return Account(f"uid {owner}", owner, data.stat().st_gid)
    return _unprivileged()


def _unprivileged() -> Account:
    for name in _CANDIDATES:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Account(name, found.pw_uid, found.pw_gid)
    raise Misconfigured(
        f"PostgreSQL refuses to run as root, and this machine has none of the accounts {', '.join(_CANDIDATES)}:"
        " run this as an ordinary user, or set DATABASE_URL to a server of yours."
    )


def launch_options(account: Account | None, directories: Iterable[Path]) -> list[str]:
    """Options of launch.py so that `account` runs a program that needs these directories."""
    if account is None:
        return []
    options = ["--uid", str(account.uid), "--gid", str(account.gid)]
    closed = next((place for place in directories if not account.can_enter(place.resolve())), None)
    if closed is None:
        return options
    if sys.platform != "linux":
        raise Misconfigured(
            f"We are root, servers run as {account.name}, and {closed} is closed to that account: run this as an"
            " ordinary user, or put the project and DATA_DIR where every user may enter (such as /opt)."
        )
    return [*options, "--enter-everywhere"]
