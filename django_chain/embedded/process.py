"""A child process that we own: started apart from our terminal, logged, waited for, and ended with us.

On Linux the kernel ends a child when we die, even by `kill -9`. Elsewhere (and as a second net) the next start finds
the child in its pid file and stops it first.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from django_chain.embedded.errors import StartError

_LAUNCH = Path(__file__).with_name("launch.py")
_MAX_LOG = 5_000_000


@cache
def _spawner() -> ThreadPoolExecutor:
    """The one thread that starts children.

    The kernel's "parent" for this purpose is the thread that forked: those of a short-lived one would die with it.
    """
    return ThreadPoolExecutor(1, thread_name_prefix="embedded-spawner")


class Process:
    """One program under our care. Not started until `start`; `stop` and `kill` may be called at any time."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        pid_file: Path,
        launch_options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGKILL),
        patience: float = 10.0,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._log = log
        self._pid_file = pid_file
        self._launch_options = list(launch_options)
        self._env = env
        self._cwd = cwd
        self._stop_signals = stop_signals
        self._patience = patience
        self._death_signal = death_signal
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        return self._child.pid if self.running and self._child else None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the program, after the end of an orphan that an earlier run of ours may have left."""
        if self.running:
            return
        stop_orphan(self._pid_file, self._stop_signals, patience=self._patience)
        self._child = _spawner().submit(self._spawn).result()
        self._pid_file.write_text(json.dumps({"pid": self._child.pid, "identity": identity(self._child.pid)}))

    def wait_ready(self, ready: Callable[[], bool], *, deadline: float, every: float = 0.02) -> None:
        """Wait until `ready()`; raises StartError when the program ends or `deadline` seconds pass first."""
        until = time.monotonic() + deadline
        while not ready():
            if not self.running:
                raise StartError(f"{self.name} ended while it started ({self._ending()}). {self.log_tail()}")
            if time.monotonic() > until:
                self.stop()
                raise StartError(f"{self.name} was not ready after {deadline:.0f} s. {self.log_tail()}")
            time.sleep(every)

    def stop(self) -> None:
        """End the program in an orderly way; a harder signal follows whenever patience runs out."""
        child = self._child
        if child is None:
            return
        for number in self._stop_signals:
            if child.poll() is not None:
                break
            _signal_group(child.pid, number)
            try:
                child.wait(self._patience)
            except subprocess.TimeoutExpired:
                continue
        self._forget()

    def kill(self) -> None:
        """End the program and its children at once, as a crash would."""
        if self._child is not None:
            _signal_group(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._forget()

    def log_tail(self, lines: int = 12) -> str:
        """The end of what this start has logged, as a sentence."""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            tail = file.read().decode(errors="replace").strip().splitlines()[-lines:]
        return "\n".join([f"The end of {self._log}:", *(f"  {line}" for line in tail)])

    def _spawn(self) -> subprocess.Popen[bytes]:
        if self._log.exists() and self._log.stat().st_size > _MAX_LOG:
            self._log.replace(self._log.with_suffix(".log.old"))
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            return subprocess.Popen(
                bound(self._command, death_signal=self._death_signal, options=self._launch_options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                # Ctrl-C in the terminal is for us; children are stopped in our order.
                start_new_session=True,
            )

    def _ending(self) -> str:
        code = self._child.returncode if self._child else None
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def _forget(self) -> None:
        self._child = None
        self._pid_file.unlink(missing_ok=True)


def bound(
    command: Sequence[str | Path], *, death_signal: signal.Signals = signal.SIGKILL, options: Sequence[str] = ()
) -> list[str]:
    """`command` wrapped so that the kernel sends it `death_signal` when we die; `options` are launch.py's."""
    bond = ["--parent", str(os.getpid()), "--death-signal", str(int(death_signal))]
    return [sys.executable, "-I", "-S", str(_LAUNCH), *bond, *options, "--", *map(str, command)]


def run_bound(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]) -> int:
    """Run a program to its end, with our terminal as its output; returns its exit code."""
    # A session of its own: Ctrl-C comes to us alone, and leaving this call ends the program.
    return subprocess.run(bound(command), cwd=cwd, env=env, start_new_session=True, check=False).returncode


def stop_orphan(pid_file: Path, signals: Sequence[signal.Signals], *, patience: float) -> None:
    """Stop the process that a dead supervisor recorded in `pid_file`, if it lives and is still the same process."""
    try:
        recorded = json.loads(pid_file.read_text())
        pid, was = int(recorded["pid"]), recorded["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for number in signals:
        if identity(pid) != was:
            break
        _signal_group(pid, number)
        wait_gone(pid, was, patience=patience)
    pid_file.unlink(missing_ok=True)


def wait_gone(pid: int, was: str | None, *, patience: float) -> None:
    """Wait until the process `pid` whose identity is `was` has ended, at most `patience` seconds."""
    until = time.monotonic() + patience
    while identity(pid) == was is not None and time.monotonic() < until:
        time.sleep(0.05)


def identity(pid: int) -> str | None:
    """What tells this process from a later one with the same id; None if there is none (or only its zombie)."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        # The state, and the start in ticks since boot (fields 3 and 22 of proc(5)).
        return None if fields[0] in "ZX" else f"{_boot()}/{fields[19]}"
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return found.stdout.strip() or None


def command_line(pid: int) -> str:
    """The command line of a process; empty if there is none."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
        except OSError:
            return ""
    found = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return found.stdout.strip()


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Signal a child; SIGKILL goes to its whole group, a softer one to the program, which tells its own children."""
    try:
        if number == signal.SIGKILL:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        pass
