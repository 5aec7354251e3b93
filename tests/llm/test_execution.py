"""Runs outside of chats as the process owns them: what is opened is ended, whoever goes away meanwhile."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from accounts.access import workspace_for
from accounts.models import Workspace
from chat import sessions, turns
from kernel import database
from llm import execution, sweeping, versions
from llm.execution import Executions
from llm.models import Budget, BudgetKind, InteractionLog, Reservation, Workflow
from llm.runs import Ask
from tests.conftest import Person
from tests.llm.conftest import Configure
from tests.llm.locks import Locked, somebody_waits, until

WORDS = {"PROVIDER": "fake", "MODEL": "fake"}


@pytest.fixture(autouse=True)
def _fakes(configure: Configure) -> None:
    configure(
        default={**WORDS, "OPTIONS": {"text": "word ", "tokens": 20, "delay": 0.01}},
        long={**WORDS, "OPTIONS": {"text": "word ", "tokens": 10_000, "delay": 0.05}},
    )


@pytest.fixture
def ask(person: Person) -> Callable[..., Awaitable[Ask]]:
    async def stored(model: str = "") -> Ask:
        def store() -> Ask:
            place = workspace_for(person.caller)
            steps = [{"type": "llm", "model": model}]
            versions.create(Workflow, place.pk, "flow", user_id=None, activate=True, workflow_definition=steps)
            return Ask(workspace_id=place.pk, workflow="flow", question="why?", user_id=person.user.pk)

        return await database.run(store)

    return stored


def _statuses(ask: Ask) -> list[str]:
    return list(InteractionLog.objects.filter(workspace_id=ask.workspace_id).values_list("status", flat=True))


async def test_a_drain_lets_a_run_that_is_just_being_opened_end(ask: Any) -> None:
    mine, asked = Executions(), await ask()
    with Locked(Workspace.objects.filter(id=asked.workspace_id)) as lock:
        opening = asyncio.create_task(mine.begin(asked))
        await until(somebody_waits)
        draining = asyncio.create_task(mine.drain(10))
        await asyncio.to_thread(lock.let_go)
        await draining

    assert (await opening).status == "ok"
    assert await database.run(_statuses, asked) == ["ok"]


async def test_a_close_stops_a_run_that_is_just_being_opened(ask: Any) -> None:
    mine, asked = Executions(), await ask("long")
    with Locked(Workspace.objects.filter(id=asked.workspace_id)) as lock:
        opening = asyncio.create_task(mine.begin(asked))
        await until(somebody_waits)
        closing = asyncio.create_task(mine.close())
        await asyncio.sleep(0)
        await asyncio.to_thread(lock.let_go)
        await closing

    assert (await opening).status == "stopped"
    assert await database.run(_statuses, asked) == ["stopped"]


async def test_who_is_gone_before_the_run_is_open_leaves_none(ask: Any) -> None:
    mine, asked = Executions(), await ask("long")
    with Locked(Workspace.objects.filter(id=asked.workspace_id)) as lock:
        opening = asyncio.create_task(mine.begin(asked))
        await until(somebody_waits)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await asyncio.to_thread(lock.let_go)

        await until(lambda: _statuses(asked) == ["stopped"])
    await mine.close()


async def test_the_runs_of_another_event_loop_are_not_drained_with_ours(ask: Any) -> None:
    asked = await ask("long")
    begun, leave = threading.Event(), threading.Event()

    async def read() -> None:
        pieces = execution.execute(asked)
        await anext(pieces)
        begun.set()
        await asyncio.to_thread(leave.wait, 20)
        await pieces.aclose()

    elsewhere = threading.Thread(target=lambda: asyncio.run(read()))
    elsewhere.start()
    try:
        assert await asyncio.to_thread(begun.wait, 20)
        [running] = await database.run(list, InteractionLog.objects.filter(workspace_id=asked.workspace_id))
        assert execution.executions.find(running.run_id) is None
        await execution.executions.close()
        assert await database.run(_statuses, asked) == ["started"]
    finally:
        leave.set()
        await asyncio.to_thread(elsewhere.join)
    # Its end is written before its loop is over.
    assert await database.run(_statuses, asked) == ["stopped"]


async def test_a_run_that_was_lost_with_its_session_is_ended_by_the_sweep(person: Person) -> None:
    def lose() -> None:
        place = workspace_for(person.caller)
        Budget.objects.create(workspace=place, kind=BudgetKind.RUNS, limit=1)
        session = sessions.create_session(person.caller)
        turns.accept(person.caller, session.pk, client_id="m", text="hello", owner="nobody")
        session.delete()

    await database.run(lose)
    rows = InteractionLog.objects.filter(user=person.user)

    await database.run(sweeping.sweep)
    assert await database.run(lambda: rows.get().status) == "started"  # somebody may still work on it

    await database.run(lambda: rows.update(updated_at=Now() - timedelta(days=1)))
    await database.run(sweeping.sweep)
    assert await database.run(lambda: rows.get().status) == "interrupted"
    assert not await database.run(Reservation.objects.filter(workspace__personal_of=person.user).exists)
