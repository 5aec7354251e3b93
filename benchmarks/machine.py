"""The machine: which core does what, what a process has used, what to print beside the numbers."""

import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import psutil

SERVER_CORE, CLIENT_CORE = 0, 1
_PACKAGES = ("uvicorn", "uvloop", "websockets", "channels", "channels-redis", "langchain-core", "django", "redis")


def pin(pid: int, core: int) -> None:
    """Keep a process, and what it starts later, on one core; does nothing where that can't be."""
    if can_pin():
        os.sched_setaffinity(pid, {core})


@contextmanager
def on_the_servers_core() -> Iterator[None]:
    """Inside, this process is what is measured: all its threads, and what they start, run on the server's core."""
    _pin_threads(SERVER_CORE)
    try:
        yield
    finally:
        _pin_threads(CLIENT_CORE)


def _pin_threads(core: int) -> None:
    tasks = Path("/proc/self/task")
    for thread in [int(path.name) for path in tasks.iterdir()] if tasks.exists() else [os.getpid()]:
        with suppress(ProcessLookupError):
            pin(thread, core)


def can_pin() -> bool:
    return hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > max(SERVER_CORE, CLIENT_CORE)


def allow_many_sockets() -> None:
    """Raise the soft limit of open files to the hard one; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, all its threads included, also those that have ended."""
    if sys.platform == "linux":
        # The clock of another process (clock_getcpuclockid(3)): nanoseconds, where /proc counts hundredths of a second.
        return time.clock_gettime((~pid << 3) | 2)
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def tree_cpu_seconds(pid: int) -> float:
    """The same for a process with its children: PostgreSQL has one for each connection."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(map(_own_and_ended, family))


def _own_and_ended(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def memory_bytes(pid: int) -> int:
    """Memory that a process has for itself: PSS where the system tells it, else RSS."""
    info = psutil.Process(pid).memory_full_info()
    return int(getattr(info, "pss", info.rss))


def description() -> str:
    """The machine's size and the versions, as a Markdown paragraph."""
    cores = f"{os.cpu_count()} cores" + (
        ", server on one, client and stores on another" if can_pin() else ", not pinned"
    )
    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{_processor()}, {cores}, {memory}; load average before the run {load}.\n"
        f"Python {platform.python_version()}, {packages}."
    )


def _processor() -> str:
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
