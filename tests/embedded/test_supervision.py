"""Whose children the services are, what they may, and that none outlives its supervisor."""

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from django_chain.embedded import account, process
from django_chain.embedded.errors import Misconfigured
from django_chain.embedded.postgres import Postgres

_ROOT = Path(__file__).resolve().parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who hands the servers to another account")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")


def _supervisor(directory: Path) -> list[str]:
    return [sys.executable, "-m", "tests.embedded.supervised", str(directory)]


@contextmanager
def _running(command: Sequence[str], directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    log = (directory / "supervisor.log").open("wb")
    with log, subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=log) as supervisor:
        assert supervisor.stdout is not None
        try:
            line = supervisor.stdout.readline()
            assert line, (directory / "supervisor.log").read_text()
            yield supervisor, json.loads(line)
        finally:
            supervisor.kill()


def _wait_gone(pids: Sequence[int]) -> None:
    until = time.monotonic() + 10
    while (alive := [pid for pid in pids if process.identity(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive


@on_linux
def test_kill_9_of_the_supervisor_leaves_no_orphan_and_the_data_is_there_at_the_next_start(tmp_path: Path) -> None:
    with _running(_supervisor(tmp_path), tmp_path) as (supervisor, found):
        time.sleep(0.3)
        assert all(process.identity(pid) for pid in found["pids"])
        with psycopg.connect(found["postgres"], autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        supervisor.kill()
        _wait_gone(found["pids"])
    with Postgres(tmp_path, fast=True) as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


@on_linux
@as_root
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_root_hands_the_server_to_an_account_without_rights_even_below_a_closed_directory(mode: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(mode)
        with Postgres(directory, fast=True) as server:
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{server.pid}/status").read_text().splitlines()
                if ":\t" in line
            )
            with psycopg.connect(server.url) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
        assert status["Uid"].split()[0] != "0"
        # At most the one right: to pass (or read) what others closed.
        assert int(status["CapEff"], 16) in ({1 << 1, 1 << 2} if mode == 0o700 or _closed() else {0})
        assert directory.stat().st_mode & 0o777 == mode


@on_linux
@as_root
def test_an_ordinary_user_runs_it_too_and_may_not_use_what_root_made(tmp_path: Path) -> None:
    nobody = account.for_server(tmp_path / "none")
    assert nobody is not None
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    nobody.give(theirs)
    # The tests' own interpreter may lie in root's home, so this user is allowed to pass closed directories.
    options = ["--uid", str(nobody.uid), "--gid", str(nobody.gid), "--enter-everywhere"]
    command = process.bound(_supervisor(theirs), options=options)
    with _running(command, tmp_path) as (_, found):
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in found["pids"]} == {nobody.uid}
        assert {path.stat().st_uid for path in theirs.iterdir()} == {nobody.uid}
    _wait_gone(found["pids"])

    ours = tmp_path / "ours"
    ours.mkdir()
    command = process.bound(_supervisor(ours), options=options)
    (ours / "postgres").mkdir()
    refused = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert "belongs to another user" in refused.stderr


def test_without_an_account_to_hand_over_to_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(Misconfigured, match="run this as an ordinary user, or set DATABASE_URL"):
        account.for_server(tmp_path / "none")


def test_a_child_that_ignores_us_is_ended_the_hard_way(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    log = tmp_path / "log"
    child = process.Process(
        "stubborn", [sys.executable, "-c", stubborn], log=log, pid_file=tmp_path / "pid.json", patience=0.3
    )
    child.start()
    child.wait_ready(lambda: "up" in log.read_text(), deadline=10)
    pid = child.pid
    assert pid is not None
    child.stop()
    assert process.identity(pid) is None
    assert not (tmp_path / "pid.json").exists()


def test_a_child_that_never_gets_ready_is_stopped_and_reported(tmp_path: Path) -> None:
    child = process.Process(
        "idle",
        [sys.executable, "-c", "import time; time.sleep(60)"],
        log=tmp_path / "log",
        pid_file=tmp_path / "pid.json",
    )
    child.start()
    with pytest.raises(process.StartError, match="idle was not ready after"):
        child.wait_ready(lambda: False, deadline=0.3)
    assert not child.running


def _closed() -> bool:
    """Whether the tests themselves run from a place that others can't enter."""
    nobody = account.for_server(Path("/nonexistent"))
    return nobody is not None and not nobody.can_enter(Path(sys.prefix))
