"""The shape of the house: layers, what start-up may import, and how often a turn asks the database."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from chat import sessions, turns
from chat.hub import Hub
from chat.models import ChatHistory, MessageStatus
from chat.runner import Runner
from chat.turns import Outcome
from kernel import database, redis
from llm import configuration
from llm.configuration import Price
from llm.journal import Call, Closed, RunJournal
from llm.models import Budget, BudgetKind, CallStatus, Reservation
from llm.usage import Usage
from tests.conftest import Person

ROOT = Path(__file__).resolve().parents[1]

# Layers --------------------------------------------------------------------------------------------------------------


def test_no_package_imports_from_a_layer_above_it() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


# Start-up ------------------------------------------------------------------------------------------------------------

HEAVY = (
    "langchain",
    "langchain_core",
    "langchain_openai",
    "langgraph",
    "langsmith",
    "openai",
    "tiktoken",
    "transformers",
)

STARTUP = f"""
import sys
import django
django.setup()
from django.apps import apps
from django.contrib import admin
from django.urls import get_resolver
from importlib import import_module, util
admin.autodiscover()
get_resolver().url_patterns
for config in apps.get_app_configs():
    for name in ("models", "admin", "urls", "tasks"):
        if util.find_spec(config.name + "." + name):
            import_module(config.name + "." + name)
    if util.find_spec(config.name + ".migrations"):
        for file in __import__("pathlib").Path(config.path, "migrations").glob("0*.py"):
            import_module(config.name + ".migrations." + file.stem)
import django_chain.asgi
import django_chain.celery
import django_chain.providers
print(*sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r})))
"""


def test_start_up_imports_no_model_library() -> None:
    done = subprocess.run([sys.executable, "-c", STARTUP], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], (
        "imported at start-up; make it a 'module:factory' string or import it in the function"
    )


def test_manage_check_is_clean() -> None:
    call_command("check", fail_level="INFO")


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


# The hot path --------------------------------------------------------------------------------------------------------


@contextmanager
def queries(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What goes to the database meanwhile, from every thread."""
    seen: list[str] = []
    execute = CursorWrapper._execute_with_wrappers

    def noting(self: Any, sql: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(" ".join(str(sql).split()))
        return execute(self, sql, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(CursorWrapper, "_execute_with_wrappers", noting)
        yield seen


def listed(seen: list[str]) -> str:
    return "\n".join(f"{number}. {sql[:160]}" for number, sql in enumerate(seen, 1))


CALL = Call(number=0, alias="default", provider="fake", model="fake", parameters={}, messages=[])


async def test_a_message_costs_seven_queries_to_accept_and_six_to_finish(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await database.run(sessions.create_session, person.caller)
    holding = await configuration.current(session.workspace_id)  # once a change and process
    for number in range(2):  # the second has a history; it must not cost more
        with queries(monkeypatch) as seen:
            accepted = await database.run(
                turns.accept, person.caller, session.id, client_id=f"m{number}", text="hello", owner="me"
            )
        assert len(seen) == 7, listed(seen)
        assert accepted.turn is not None
        with queries(monkeypatch) as seen:
            journal = RunJournal(accepted.turn.ref)
            journal.under(holding, workflow_id=None)
            await journal.open(CALL)
            journal.close(Closed(call=CALL, status=CallStatus.OK, usage=Usage(3, 1, estimated=False)))
            ending = journal.ending(CallStatus.OK)
            outcome = Outcome(status=MessageStatus.COMPLETE, text="hi", log=ending)
            await database.run(turns.finish, accepted.turn, outcome)
        assert len(seen) == 6, listed(seen)


async def test_budgets_cost_three_queries_to_accept_six_a_call_and_two_to_finish(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await database.run(sessions.create_session, person.caller)
    for kind in BudgetKind:
        for per in Budget.Per:
            values: dict[str, Any] = {"workspace_id": session.workspace_id, "kind": kind, "limit": 10**6, "per": per}
            await database.run(Budget.objects.create, **values)
    holding = await configuration.current(session.workspace_id)
    price = Price(
        provider="", model="", input=Decimal(1), output=Decimal(1), cached_input=Decimal(1), valid_from=timezone.now()
    )
    call = replace(CALL, price=price)
    for number in range(2):
        with queries(monkeypatch) as seen:
            accepted = await database.run(
                turns.accept, person.caller, session.id, client_id=f"m{number}", text="hello", owner="me"
            )
        assert len(seen) == 7 + 3, listed(seen)
        assert accepted.turn is not None
        journal = RunJournal(accepted.turn.ref)
        journal.under(holding, workflow_id=None)
        with queries(monkeypatch) as seen:
            await journal.open(call)
        assert len(seen) == 6, listed(seen)
        journal.close(Closed(call=call, status=CallStatus.OK, usage=Usage(3, 1, estimated=False)))
        with queries(monkeypatch) as seen:
            outcome = Outcome(status=MessageStatus.COMPLETE, text="hi", log=journal.ending(CallStatus.OK))
            await database.run(turns.finish, accepted.turn, outcome)
        assert len(seen) == 6 + 2, listed(seen)
    held = Reservation.objects.filter(workspace_id=session.workspace_id)
    assert not await database.run(held.exists)


async def test_a_repeat_costs_three_queries(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await database.run(sessions.create_session, person.caller)
    send = partial(turns.accept, person.caller, session.id, client_id="m", text="hello", owner="me")
    await database.run(send)
    with queries(monkeypatch) as seen:
        await database.run(send)
    assert len(seen) == 3, listed(seen)


async def test_a_whole_turn_costs_the_same_with_a_long_history(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    runner = Runner(hub)  # not started: its look at everyone's leases is not the turn's

    async def ask(number: int) -> list[str]:
        with queries(monkeypatch) as seen:
            accepted = await runner.send(person.caller, session.id, client_id=f"m{number}", text="hello")
            while accepted.answer_id not in runner.jobs:
                await asyncio.sleep(0)
            while accepted.answer_id in runner.jobs:
                await asyncio.sleep(0.005)
        row = await database.run(ChatHistory.objects.get, id=accepted.answer_id)
        assert row.status == "complete", row.error_code
        return seen

    try:
        session = await database.run(sessions.create_session, person.caller)
        await ask(0)
        second = await ask(1)
        for number in range(2, 12):
            latest = await ask(number)
        assert len(second) == len(latest) == 7 + 3 + 6, listed(latest)
    finally:
        await runner.close()
        await redis.close()
