"""What is around the servers: PostgreSQL, Valkey, a user with sessions. Made for the run, gone with it."""

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

import django
from django.core.management import call_command

from benchmarks import machine
from benchmarks.report import progress
from django_chain.embedded.postgres import Postgres
from django_chain.embedded.valkey import Valkey


class Stage:
    """`with Stage() as stage`: inside, the stores run and the database is migrated."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="chain-bench-"))
        # fsync stays on: a turn's time includes its two commits.
        self.postgres, self.valkey = Postgres(self.directory), Valkey(self.directory)
        self.token = ""
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            machine.pin(os.getpid(), machine.CLIENT_CORE)
            machine.allow_many_sockets()
            progress("starting PostgreSQL and Valkey")
            undo.enter_context(self.postgres)
            undo.enter_context(self.valkey)
            os.environ |= self.variables
            progress("making the database")
            django.setup()
            call_command("migrate", verbosity=0)
            self.token = _new_user()
            self._exit = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._exit.close()

    @property
    def variables(self) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.valkey.url,
            "DATA_DIR": str(self.directory),
            "SECRET_KEY": "benchmarks-only",
            "DEBUG": "0",
        }

    @property
    def workspace_id(self) -> UUID:
        # Models: Django is set up when the stage stands, not when this file is imported.
        from accounts.models import Workspace

        found: UUID = Workspace.objects.get().id
        return found

    def new_sessions(self, count: int, *, messages: int = 0) -> list[UUID]:
        """Sessions of the user, each with so many messages of history."""
        # Models: Django is set up when the stage stands, not when this file is imported.
        from accounts.models import Workspace
        from chat.models import ChatHistory, ChatSession

        workspace = Workspace.objects.get()
        sessions = [
            ChatSession(workspace=workspace, user_id=workspace.personal_of_id, seq=messages, last_order=messages)
            for _ in range(count)
        ]
        ChatSession.objects.bulk_create(sessions)
        for session in sessions:
            rows: list[ChatHistory] = []
            for place in range(1, messages + 1):
                said = ChatHistory(
                    workspace=workspace,
                    session=session,
                    # Each follows the one before: what has no parent is the beginning of another branch.
                    parent_id=rows[-1].id if rows else None,
                    role="USER" if place % 2 else "ASSISTANT",
                    content=f"Message {place}: what was said then, in about as many words as people use.",
                    order=place,
                    seq=place,
                    accepted_seq=place,
                )
                rows.append(said)
                session.head_id = said.id
            ChatHistory.objects.bulk_create(rows, batch_size=2000)
        if messages:
            ChatSession.objects.bulk_update(sessions, ["head_id"])
        return [session.id for session in sessions]


def _new_user() -> str:
    """A user's token."""
    # As above: after Django's set-up.
    from django.contrib.auth import get_user_model

    from accounts import tokens

    return tokens.mint(get_user_model().objects.create_user("bench", "bench@example.org", "correct horse"))
