import os
import signal
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.db import transaction
from django.db.models.signals import post_save


def die_once(moment: str, text: str) -> None:
    """End this process here if `text` asks for it and it has not happened yet."""
    file = os.environ.get("FAULTS_FILE")
    if file is None or f"[[die:{moment}]]" not in text:
        return
    try:
        with Path(file).open("x") as hit:
            hit.write(moment)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class FaultsConfig(AppConfig):
    name = "tests.support.faults"
    label = "faults"

    def ready(self) -> None:
        from chat.models import Run

        post_save.connect(self._run_saved, sender=Run, dispatch_uid="faults")

    @staticmethod
    def _run_saved(instance: Any, created: bool, **_: Any) -> None:
        if created:
            text = instance.question.content
            transaction.on_commit(lambda: die_once("after-commit", text))
