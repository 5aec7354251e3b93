"""Brings the demo's database up to date: tables, a user to sign in with, sample documents, a sample workflow."""

import json
import time
from collections.abc import Callable
from io import StringIO
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, call_command
from django.db import connections

from django_chain.embedded import state
from django_chain.embedded.demo import SAMPLES, USERNAME, WORKFLOW, step
from llm import versions
from llm.models import Prompt, Workflow


class Command(BaseCommand):
    help = "Prepare the database of the demo (run by `python -m django_chain demo`; safe to repeat)."

    def handle(self, *_args: Any, **_options: Any) -> None:
        self._timed("tables", _migrate)
        self._timed("demo user", _sign_up)
        if SAMPLES.is_dir():
            self._timed("sample documents", _ingest)
        self._timed("sample workflow", _make_workflow)
        connections.close_all()

    def _timed(self, name: str, work: Callable[[], None]) -> None:
        begun = time.monotonic()
        work()
        step(name, time.monotonic() - begun)


def _migrate() -> None:
    call_command("migrate", interactive=False, verbosity=0)


def _sign_up() -> None:
    user, created = get_user_model().objects.get_or_create(
        username=USERNAME, defaults={"email": "demo@example.com", "is_staff": True, "is_superuser": True}
    )
    password = state.demo_password()
    if created or not user.check_password(password):
        user.set_password(password)
        user.save()


def _make_workflow() -> None:
    """The workflow `desk` with its prompt, once: what people made of them since stays."""
    user = get_user_model().objects.get(username=USERNAME)
    workspace_id = user.personal_workspace.id
    sample = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    made: list[tuple[Any, dict[str, Any]]] = [
        (Prompt, {"prompt_template": sample["prompt"]}),
        (
            Workflow,
            {"workflow_definition": sample["workflow"], "description": "Looks up, classifies twice, answers."},
        ),
    ]
    for model, content in made:
        if not model.objects.filter(workspace_id=workspace_id, name=WORKFLOW.stem).exists():
            versions.create(model, workspace_id, WORKFLOW.stem, user_id=user.pk, activate=True, **content)


def _ingest() -> None:
    call_command("ingest", str(SAMPLES), user=USERNAME, verbosity=0, stdout=StringIO())
