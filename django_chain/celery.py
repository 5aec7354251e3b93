"""The Celery application: work that outlives a request. `celery -A django_chain worker` and `… beat`."""

import logging.config
import os
import signal
import sys
from functools import partial
from typing import Any

from billiard import active_children
from billiard.util import set_pdeathsig  # type: ignore[attr-defined]  # its stubs lack it
from celery import Celery
from celery.schedules import crontab
from celery.signals import (
    beat_embedded_init,
    celeryd_init,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
    worker_shutting_down,
)
from django.conf import settings

from memory import gone

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_chain.settings")

#: To the processes of the pool. Whoever doesn't listen yet ignores it, as the system does.
_END_SOON = signal.SIGURG


def celery_url(url: str) -> str:
    """A Redis URL as Celery writes it: for a unix socket it has a form of its own."""
    return url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=", 1)


@setup_logging.connect
def _log_as_everywhere(**_: object) -> None:
    """In the place of Celery's own handlers, which redact nothing."""
    logging.config.dictConfig(settings.LOGGING)


@celeryd_init.connect
def _be_patient(conf: Any, **_: object) -> None:
    """A worker lives of the broker and waits for it; its reads last a second even when there is nothing to do."""
    conf.broker_transport_options = {"socket_connect_timeout": 5, "socket_timeout": 15}


@celeryd_init.connect
def _bind_processes(**_: object) -> None:
    """A worker that is killed leaves no process of its own behind, which nobody could tell to stop."""
    if sys.platform == "linux":
        end = partial(_end_with, os.getpid())
        worker_process_init.connect(end, weak=False)
        beat_embedded_init.connect(end, weak=False)


def _end_with(worker: int, **_: object) -> None:
    set_pdeathsig(signal.SIGKILL)
    # Killed before the kernel knew of the bond: nothing will come any more.
    if os.getppid() != worker:
        os.kill(os.getpid(), signal.SIGKILL)


@worker_process_init.connect
def _listen(**_: object) -> None:
    signal.signal(_END_SOON, _end_soon)


@worker_shutting_down.connect
def _tell_the_pool(**_: object) -> None:
    """A worker that is told to stop waits for its tasks: they learn of it, and a long document is given back."""
    _end_soon()
    for child in active_children():
        if "PoolWorker" in child.name and child.pid is not None:
            os.kill(child.pid, _END_SOON)


@worker_process_shutdown.connect
@worker_shutdown.connect
def _close(**_: object) -> None:
    gone.close()


def _end_soon(*_: object) -> None:
    # Needs the apps: they are loaded by the time that there is anything to end.
    from vectorstore import ingestion  # noqa: PLC0415

    ingestion.end_soon()


# Who tells a task names this application (kernel.jobs), and a worker makes its own the current one: a project that has
# one keeps it, also where ours is loaded later.
app = Celery("django_chain", set_as_current=False)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    broker_url=celery_url(settings.CELERY_BROKER_URL),
    result_backend=celery_url(settings.CELERY_RESULT_BACKEND),
    broker_connection_retry_on_startup=True,
    # A job that a dying worker held is done again: every job of ours may run twice.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_time_limit=600,
    # A request that tells of work doesn't wait for a broker that is away.
    broker_transport_options={"socket_connect_timeout": 1, "socket_timeout": 1, "max_retries": 0},
    broker_connection_timeout=1,
    result_expires=3600,
    beat_schedule={
        "forget-expired-sign-ins": {
            "task": "accounts.tasks.forget_expired_sign_ins",
            "schedule": crontab(hour="3", minute="17"),
        },
        "end-overdue-runs": {"task": "llm.tasks.end_overdue_runs", "schedule": crontab()},
        "prune-cached-answers": {"task": "llm.tasks.prune_cached_answers", "schedule": crontab(minute="*/10")},
        "prune-budget-counters": {
            "task": "llm.tasks.prune_budget_counters",
            "schedule": crontab(minute="41"),
        },
        "prune-interaction-log": {"task": "llm.tasks.prune_interaction_log", "schedule": crontab(minute="7-59/10")},
        # What waited in a broker that was away for long would come all at once: only the newest of these counts.
        "sweep-ingest-jobs": {
            "task": "vectorstore.tasks.sweep_ingest_jobs",
            "schedule": 10.0,
            "options": {"expires": 10},
        },
        "prune-cached-embeddings": {
            "task": "vectorstore.tasks.prune_cached_embeddings",
            "schedule": crontab(minute="23"),
        },
        "sweep-memory-jobs": {"task": "memory.tasks.sweep_memory_jobs", "schedule": crontab()},
        "refresh-metadata": {"task": "vectorstore.tasks.refresh_metadata", "schedule": crontab()},
        "collect-garbage": {"task": "vectorstore.tasks.collect_garbage", "schedule": crontab()},
        "tend-indexes": {"task": "vectorstore.tasks.tend_indexes", "schedule": crontab()},
        "tend-reembedding": {"task": "vectorstore.tasks.tend_reembedding", "schedule": crontab()},
        "prune-semantic-answers": {
            "task": "vectorstore.tasks.prune_semantic_answers",
            "schedule": crontab(minute="5-59/10"),
        },
    },
)
app.autodiscover_tasks()
