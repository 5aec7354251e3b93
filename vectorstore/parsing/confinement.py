"""What a parser's process may not do: write files, open connections, start programs, grow or run without end.

Two fences: the kernel's limits, and an audit hook that refuses what Python code asks for. A parser that is made to do
harm in C meets the first one only; it then has no file, no secret of ours in its environment, and a few seconds.
"""

import contextlib
import ctypes
import math
import os
import resource
import signal
import sys
from collections.abc import Sequence
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_OPEN_FILES = 64
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Audit events by their beginning. Imports list folders, which is the one thing of `os` that is left.
_REFUSED = (
    *("os.", "socket.", "subprocess.", "shutil.", "tempfile.", "ctypes.", "mmap.", "fcntl.", "resource.", "signal."),
    *("http.", "urllib.", "ftplib.", "smtplib.", "poplib.", "imaplib.", "nntplib.", "telnetlib.", "webbrowser."),
    *("pty.", "sqlite3.", "syslog.", "pickle.", "_thread.", "_winapi.", "msvcrt.", "winreg."),
)
_ALLOWED = ("os.listdir", "os.scandir")
_CODE = (".py", ".pyc", ".so", ".pyd")


def die_with(parent: int, *, after: float) -> None:
    """End this process when `parent` does, and in any case `after` seconds (wall clock) from now."""
    signal.setitimer(signal.ITIMER_REAL, after)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent ended first")


def limit(*, memory: int, seconds: float) -> None:
    """Set the kernel's limits, as far as the platform has them: macOS knows none for memory."""
    wanted = [
        ("RLIMIT_AS", memory),
        ("RLIMIT_CPU", math.ceil(seconds)),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", _OPEN_FILES),
        # No process and no thread beside this one. Root is not bound by it.
        ("RLIMIT_NPROC", 0),
    ]
    for name, most in wanted:
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (most, most))


def fence(readable: Sequence[str]) -> None:
    """Refuse, from now on, all that a parser has no need of. Modules below `readable` may be imported."""
    roots = tuple(os.path.join(root, "") for root in readable)  # noqa: PTH118  the hook must not make Path objects
    absolute = os.path.abspath

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            code = isinstance(path, str) and path.endswith(_CODE) and absolute(path).startswith(roots)
            if flags & _WRITING or not code:
                raise PermissionError("a parser opens no files")
        elif event.startswith(_REFUSED) and event not in _ALLOWED:
            raise PermissionError("a parser may not do this")

    sys.addaudithook(hook)
