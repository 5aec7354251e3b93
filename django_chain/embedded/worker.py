"""The worker as the demo's child: Celery with two processes for tasks, and one for what is on the schedule."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from django_chain.embedded import process
from django_chain.embedded.places import Places

#: Seconds that tasks under way may take to finish; a task that is ended then is done again at the next start.
GRACE = 10
_ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """`celery -A django_chain worker --beat`. Nobody waits for it: what there is to do waits in PostgreSQL."""

    def __init__(self, data_dir: Path, *, variables: Mapping[str, str]) -> None:
        places = Places(data_dir)
        self._process = process.Process(
            "The worker",
            [sys.executable, "-m", "celery", "-A", "django_chain", "worker", *_options(places)],
            log=places.log("worker"),
            pid_file=places.pid_file("worker"),
            env=os.environ | dict(variables),
            cwd=_ROOT,
            stop_signals=(signal.SIGTERM, signal.SIGKILL),
            patience=GRACE,
        )

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.running

    def start(self) -> str:
        """Start it; it is ready some seconds later."""
        self._process.start()
        return ""

    def stop(self) -> None:
        self._process.stop()

    def log_tail(self) -> str:
        return self._process.log_tail()


def _options(places: Places) -> list[str]:
    return [
        # Processes, not threads: a task that hangs or crashes is ended alone, and its memory is given back.
        *("--pool", "prefork", "--concurrency", "2"),
        *("--beat", "--schedule", str(places.data("beat-schedule"))),
        # There is no other worker to talk to.
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        *("--loglevel", "INFO"),
    ]
