"""The demo as a person runs it: ready, stopped, killed, started again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from django_chain.embedded.lock import OnlyRun

_ROOT = Path(__file__).resolve().parents[2]
#: Seconds. It takes about 6 on two idle cores and must take less than 15; the tests share theirs.
SECOND_START = 30


class Demo:
    """One run of the demo in a directory of its own."""

    def __init__(self, data_dir: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.data_dir = data_dir
        self.output = data_dir.with_suffix(".out")
        # As from a fresh terminal: nothing of the tests' own services.
        own = ("DATABASE_URL", "REDIS_URL", "OPENAI_", "DJANGO_SETTINGS_MODULE", "DEBUG", "LLM_PROVIDER")
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        # The worker says at INFO that it is ready.
        self._environ |= {"DATA_DIR": str(data_dir), "PORT": str(self.port), "LOG_LEVEL": "INFO"}
        self._process: subprocess.Popen[bytes] | None = None
        self._children: list[psutil.Process] = []
        self._starts = 0

    def start(self) -> float:
        """Start it; returns the seconds until it was ready."""
        begun = time.monotonic()
        self._starts += 1
        with self.output.open("wb") as output:
            command = [sys.executable, "-m", "django_chain", "demo"]
            self._process = subprocess.Popen(command, cwd=_ROOT, env=self._environ, stdout=output, stderr=output)
        while "Ctrl-C stops everything" not in self.output.read_text():
            assert self._process.poll() is None, self.output.read_text()
            assert time.monotonic() - begun < 90, self.output.read_text()
            time.sleep(0.1)
        return time.monotonic() - begun

    def wait_for_worker(self) -> psutil.Process:
        """Until the worker takes tasks, with the processes of its pool and its beat."""
        until = time.monotonic() + 60
        log, recorded = self.data_dir / "logs" / "worker.log", self.data_dir / "run" / "worker.json"
        worker = psutil.Process(json.loads(recorded.read_text())["pid"])
        while log.read_text().count(" ready.") < self._starts or len(worker.children()) < 3:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        return worker

    def end(self, number: signal.Signals) -> int:
        """Send it a signal and wait for its end; returns the exit code."""
        assert self._process is not None
        self._children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        assert self._process is not None
        return self._process.wait(40)

    def manage(self, *arguments: str) -> None:
        """A command that a person runs beside the demo."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=_ROOT, env=self._environ, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr

    def survivors(self) -> list[psutil.Process]:
        """Children that still run ten seconds later."""
        return psutil.wait_procs(self._children, timeout=10)[1]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
            return str(response.read().decode())

    def announced(self) -> dict[str, str]:
        return dict(json.loads((self.data_dir / "services.json").read_text()))

    def count(self, table: str) -> int:
        with psycopg.connect(self.announced()["DATABASE_URL"]) as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    run = Demo(tmp_path / "demo data")
    yield run
    if run._process is not None and run._process.poll() is None:
        run.end(signal.SIGTERM)


@pytest.mark.timeout(240)
def test_the_demo_starts_stops_without_a_trace_and_survives_kill_9_with_its_data(demo: Demo) -> None:
    demo.start()
    shown = demo.output.read_text()
    assert f"http://127.0.0.1:{demo.port}/" in shown
    assert "demo / " in shown
    assert 'manage.py chat "How long is the warranty of the X200?"' in shown
    assert "csrfmiddlewaretoken" in demo.get("/accounts/login/")
    documents, passages = demo.count("vectorstore_document"), demo.count("vectorstore_chunk")
    assert documents >= 4
    demo.wait_for_worker()

    assert demo.end(signal.SIGTERM) == 0
    assert demo.survivors() == []
    assert not (demo.data_dir / "services.json").exists()

    assert demo.start() < SECOND_START
    # Indexing the same documents again changes nothing.
    assert (demo.count("vectorstore_document"), demo.count("vectorstore_chunk")) == (documents, passages)
    with psycopg.connect(demo.announced()["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS row")

    demo.wait_for_worker()
    demo.end(signal.SIGKILL)
    if sys.platform == "linux":
        assert demo.survivors() == []

    assert demo.start() < SECOND_START
    assert demo.count("kept") == 1
    assert demo.end(signal.SIGINT) == 0
    assert demo.survivors() == []


@pytest.mark.timeout(180)
def test_the_demos_worker_takes_in_what_was_queued_and_the_demo_ends_with_it(demo: Demo, tmp_path: Path) -> None:
    demo.start()
    worker = demo.wait_for_worker()
    note = tmp_path / "note.txt"
    note.write_text("The coffee machine on the third floor takes blue capsules.")
    demo.manage("ingest", str(note), "--user", "demo", "--queue")
    until = time.monotonic() + 60
    with psycopg.connect(demo.announced()["DATABASE_URL"], autocommit=True) as connection:
        ready = "SELECT count(*) FROM vectorstore_document WHERE source LIKE '%note.txt' AND state = 'ready'"
        while connection.execute(ready).fetchone() != (1,):
            assert time.monotonic() < until, (demo.data_dir / "logs" / "worker.log").read_text()
            time.sleep(0.1)

    processes = [worker, *worker.children()]
    worker.kill()
    assert demo.ended() == 1
    assert "The worker has ended unexpectedly." in demo.output.read_text()
    assert psutil.wait_procs(processes, timeout=10)[1] == []


def test_a_second_demo_in_the_same_directory_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with OnlyRun(tmp_path):
        refused = subprocess.run(
            [sys.executable, "-m", "django_chain", "demo"],
            cwd=_ROOT,
            env=os.environ | {"DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert refused.returncode == 1
    assert "set DATA_DIR to another directory" in refused.stderr
    assert "Traceback" not in refused.stderr
