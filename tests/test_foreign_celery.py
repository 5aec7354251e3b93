"""A project with a Celery application of its own keeps it: ours, loaded beside it, takes no place and no task of it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from django_chain.embedded.valkey import Valkey
from tests.support.server import ROOT

#: The files of a project as Celery's manual has it.
PROJECT = {
    "__init__.py": "from mysite.celery import app as celery_app",
    "settings.py": """
import os
from django_chain.settings import *
CELERY_BROKER_URL = CELERY_RESULT_BACKEND = os.environ["BROKER"]
CELERY_TASK_DEFAULT_QUEUE = "chain"
INSTALLED_APPS = [*INSTALLED_APPS, "mysite"]
""",
    "celery.py": """
from celery import Celery
app = Celery("mysite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_default_queue = "shop"
app.autodiscover_tasks()
""",
    "tasks.py": """
from celery import shared_task

@shared_task
def ship(number):
    pass
""",
}

#: A server tells our worker of something, in the thread of a request or in its main one; then the project queues.
SCRIPT = """
import sys, threading, django
django.setup()
from celery import current_app
from kernel import jobs
from mysite.tasks import ship

def here():
    assert jobs.tell("memory.tasks.sweep_memory_jobs") is True
    ship.delay(1)
    print(current_app.main)

def in_a_thread():
    thread = threading.Thread(target=here)
    thread.start()
    thread.join()

for work in (in_a_thread, here) if sys.argv[1] == "thread" else (here, in_a_thread):
    work()
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    with Valkey(tmp_path) as valkey:
        yield valkey.url


@pytest.mark.parametrize("first", ["thread", "main"])
def test_what_a_project_queues_is_its_own_workers_after_ours_was_told_something(
    first: str, broker: str, tmp_path: Path, server_env: dict[str, str]
) -> None:
    folder = tmp_path / "site" / "mysite"
    folder.mkdir(parents=True)
    for name, text in PROJECT.items():
        (folder / name).write_text(text)
    env = os.environ | server_env
    env |= {
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
        "PYTHONPATH": os.pathsep.join([str(folder.parent), str(ROOT)]),
        "BROKER": broker.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host="),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, first], cwd=folder.parent, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["mysite", "mysite"]
    with redis_py.Redis.from_url(broker) as client:
        assert (client.llen("shop"), client.llen("chain")) == (2, 2)
