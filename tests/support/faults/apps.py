"""A Django app of the tests: dies at named moments of a turn, once, when a message asks for it.

A message that holds `[[die:MOMENT]]` ends its server process there with SIGKILL. The file in FAULTS_FILE says that it
happened, so that the next process goes on, and the test knows that the moment was really hit. Moments:

`after-commit`   the message is committed, the ack is not on its way yet
`before-model`   the workflow step `fault`, which stands before the model call; it waits until the test has made the
                 file FAULTS_FILE + ".go", so that the ack is surely out

A document `*.poison` ends each worker that reads it.
"""

import os
import signal
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.db import transaction
from django.db.models.signals import post_save


def wanted(moment: str, text: str) -> bool:
    """Whether `text` asks for this moment and it has not happened yet."""
    file = os.environ.get("FAULTS_FILE")
    return file is not None and f"[[die:{moment}]]" in text and not Path(file).exists()


def die_once(moment: str, text: str) -> None:
    """End this process here if `text` asks for it and it has not happened yet."""
    if not wanted(moment, text):
        return
    try:
        with Path(os.environ["FAULTS_FILE"]).open("x") as hit:
            hit.write(moment)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _poisoned(data: bytes, name: str) -> Any:
    """A parser that takes its process with it."""
    os.kill(os.getpid(), signal.SIGKILL)


class FaultsConfig(AppConfig):
    name = "tests.support.faults"
    label = "faults"

    def ready(self) -> None:
        from chat.models import Run
        from llm.registry import document_parsers, workflow_steps

        post_save.connect(self._run_saved, sender=Run, dispatch_uid="faults")
        workflow_steps.add("fault", "tests.support.faults.step:FaultStep")
        workflow_steps.add("leak", "tests.support.faults.leak:LeakStep")
        document_parsers.add(".poison", _poisoned)

    @staticmethod
    def _run_saved(instance: Any, created: bool, **_: Any) -> None:
        if created:
            text = instance.question.content
            transaction.on_commit(lambda: die_once("after-commit", text))
