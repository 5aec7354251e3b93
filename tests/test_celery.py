"""The Celery application: who is told of work, what a worker leaves behind, and its periodic job."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import redis as redis_py
from celery import Celery
from django.contrib.sessions.models import Session
from django.utils import timezone

from accounts.tasks import forget_expired_sign_ins
from django_chain import celery_app
from django_chain.celery import celery_url
from django_chain.embedded.valkey import Valkey
from kernel import jobs, redis
from llm.http import shared
from llm.tasks import run_async
from tests.support.server import ROOT, free_port
from tests.support.worker import Worker

#: As a server does it: only Django is set up, and the word is told in one of its threads.
TELL = """
import sys, threading, django
django.setup()
assert "celery" not in sys.modules, "start-up has loaded Celery"
from kernel import jobs
told = []
thread = threading.Thread(target=lambda: told.append(jobs.tell(sys.argv[1])))
thread.start()
thread.join()
sys.exit(told != [True])
"""


def _until(true: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def _tell(env: dict[str, str], task: str) -> None:
    command = [sys.executable, "-c", TELL, task]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """No word failed lately, and what this test learns of the broker is forgotten."""
    monkeypatch.setattr(jobs, "_away_until", 0.0)


def _with_broker(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """This process's words go to another broker, under the same rules."""
    app = Celery("elsewhere", set_as_current=False)
    rules = ("broker_transport_options", "broker_connection_timeout")
    app.conf.update({name: celery_app.conf[name] for name in rules}, broker_url=celery_url(url))
    monkeypatch.setattr(jobs, "_find_app", lambda: app)


def test_a_word_told_in_a_servers_thread_reaches_a_worker(live_database: None, server_env: dict[str, str]) -> None:
    with Worker(server_env) as worker:
        _tell(worker.env, "llm.tasks.prune_cached_answers")
        _until(lambda: "llm.tasks.prune_cached_answers" in worker.log_text().partition(" ready.")[2])
        _until(lambda: "succeeded in" in worker.log_text())
        assert worker.stop() == 0


def test_nothing_of_a_killed_worker_lives_on(live_database: None, server_env: dict[str, str]) -> None:
    with Worker(server_env, concurrency=2, beat=True) as worker:
        _until(lambda: "beat: Starting" in worker.log_text() and len(worker.children()) == 3)
        children = worker.children()
        worker.process.kill()  # type: ignore[union-attr]  # it was started
        assert psutil.wait_procs(children, timeout=10)[1] == []


def test_nothing_of_a_worker_that_is_killed_while_it_starts_lives_on(
    live_database: None, server_env: dict[str, str]
) -> None:
    """Its processes are held before they have bound themselves to it, and go on when it is gone."""
    held: list[psutil.Process] = []
    worker = Worker(server_env, concurrency=2, beat=True)
    try:
        worker.launch()
        end = time.monotonic() + 30
        while len(held) < 3:  # without a pause, which they would use
            assert time.monotonic() < end
            for child in worker.children():
                if child not in held:
                    child.suspend()
                    held.append(child)
        worker.process.kill()  # type: ignore[union-attr]  # it was started
        worker.process.wait(10)  # type: ignore[union-attr]
        for child in held:
            with suppress(psutil.NoSuchProcess):
                child.resume()
        assert psutil.wait_procs(held, timeout=10)[1] == []
    finally:
        for child in held:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        worker.__exit__(None, None, None)


@pytest.mark.parametrize("away", ["closed", "mute", "socket"])
def test_a_broker_that_is_away_costs_a_second_once(away: str, pause: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        ports = {"closed": free_port(), "mute": mute.getsockname()[1]}
        url = "unix:///nowhere/valkey.sock?db=0" if away == "socket" else f"redis://127.0.0.1:{ports[away]}/0"
        _with_broker(monkeypatch, url)
        begun = time.monotonic()
        assert jobs.tell("llm.tasks.prune_cached_answers") is False
        assert time.monotonic() - begun < 1.6
        begun = time.monotonic()
        assert jobs.tell("llm.tasks.prune_cached_answers") is False
        assert time.monotonic() - begun < 0.1


def test_a_broker_is_found_again_also_on_a_unix_socket(
    tmp_path: Path, pause: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey = Valkey(tmp_path)
    url = valkey.start()
    assert url.startswith("unix://")

    def waiting() -> int:
        with redis_py.Redis.from_url(url) as client:
            return int(client.llen("celery"))

    _with_broker(monkeypatch, url)
    try:
        assert jobs.tell("a.task", 1) is True
        assert waiting() == 1
        valkey.stop()
        assert jobs.tell("a.task", 2) is False
        valkey.start()
        monkeypatch.setattr(jobs, "_away_until", 0.0)
        assert jobs.tell("a.task", 3) is True
        assert waiting() == 1  # nothing is kept across its end
    finally:
        valkey.stop()


class _Pool:
    closed = False

    async def aclose(self) -> None:
        self.closed = True


def test_each_task_has_clients_of_its_own_that_end_with_it() -> None:
    pools: list[_Pool] = []

    async def work(name: str, *, fails: bool) -> int:
        pools.append(shared(_Pool))
        await redis.client().set(name, 1, ex=5)
        if fails:
            raise ValueError(name)
        return len(await redis.client().get(name) or b"")

    name = f"chain-test:{uuid4().hex}"
    assert run_async(work, name, fails=False) == 1
    with pytest.raises(ValueError, match=name):
        run_async(work, name, fails=True)
    assert run_async(work, name, fails=False) == 1
    assert len({id(pool) for pool in pools}) == 3
    assert all(pool.closed for pool in pools)


def test_every_scheduled_job_exists() -> None:
    celery_app.loader.import_default_modules()
    assert {entry["task"] for entry in celery_app.conf.beat_schedule.values()} <= set(celery_app.tasks)


def test_a_unix_socket_is_written_as_celery_wants_it() -> None:
    assert celery_url("unix:///run/valkey.sock?db=0") == "redis+socket:///run/valkey.sock?virtual_host=0"
    assert celery_url("redis://cache.example:6379/0") == "redis://cache.example:6379/0"


def test_a_server_that_queues_nothing_does_not_load_celery() -> None:
    code = "import sys, django_chain; sys.exit('celery' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.django_db
def test_expired_sign_ins_are_forgotten_and_others_kept() -> None:
    now = timezone.now()
    Session.objects.all().delete()  # those of tests through live servers share this database
    for key, age in (("expired", -1), ("valid", 1)):
        Session.objects.create(session_key=key, session_data="", expire_date=now + timedelta(days=age))
    forget_expired_sign_ins()
    assert [session.session_key for session in Session.objects.all()] == ["valid"]
