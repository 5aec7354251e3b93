"""Brings the demo's database up to date: tables, a user to sign in with, the sample documents."""

import time
from collections.abc import Callable
from io import StringIO
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, call_command
from django.db import connections

from django_chain.embedded import state
from django_chain.embedded.demo import SAMPLES, USERNAME, step


class Command(BaseCommand):
    help = "Prepare the database of the demo (run by `python -m django_chain demo`; safe to repeat)."

    def handle(self, *_args: Any, **_options: Any) -> None:
        self._timed("tables", _migrate)
        self._timed("demo user", _sign_up)
        if SAMPLES.is_dir():
            self._timed("sample documents", _ingest)
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


def _ingest() -> None:
    call_command("ingest", str(SAMPLES), user=USERNAME, verbosity=0, stdout=StringIO())
