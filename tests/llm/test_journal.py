"""What a run's journal knows of its calls, whatever happens while a row is being opened."""

import asyncio
from dataclasses import replace

import pytest
from django.db import transaction

from accounts.models import Workspace
from kernel import database
from llm import ledger
from llm.journal import RunJournal
from llm.models import CallStatus, InteractionLog
from tests.llm.locks import Locked, somebody_waits, until
from tests.llm.test_budgets import call, closed, holding, open_run, run_of, workspace  # noqa: F401  a fixture


@pytest.fixture
async def journal(workspace: Workspace) -> RunJournal:  # noqa: F811
    """Of an open run."""
    nothing, run = holding(workspace), run_of(workspace)
    await database.run(open_run, nothing, run)
    journal = RunJournal(run)
    journal.under(nothing, workflow_id=None)
    return journal


def rows_of(journal: RunJournal) -> list[tuple[int, str, int]]:
    rows = InteractionLog.objects.filter(run_id=journal.run.run_id).order_by("call")
    return list(rows.values_list("call", "status", "output_tokens"))


def end(journal: RunJournal, status: CallStatus) -> None:
    with transaction.atomic():
        ledger.close_run(journal.ending(status))


async def test_a_run_that_is_stopped_while_a_row_is_opened_closes_that_row(journal: RunJournal) -> None:
    await journal.open(call(0))
    journal.close(closed(call(0), said=3))
    with Locked(InteractionLog.objects.filter(run_id=journal.run.run_id)) as lock:
        opening = asyncio.create_task(journal.open(call(1)))
        await until(somebody_waits)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await asyncio.to_thread(lock.let_go)
    await until(lambda: len(rows_of(journal)) == 2)

    await database.run(end, journal, CallStatus.STOPPED)

    assert await database.run(rows_of, journal) == [(0, "ok", 3), (1, "stopped", 0)]


async def test_a_call_that_ends_while_anothers_row_is_opened_is_not_forgotten(journal: RunJournal) -> None:
    await journal.open(call(0))
    await journal.open(call(1))
    journal.close(closed(call(0), said=3))
    with Locked(InteractionLog.objects.filter(run_id=journal.run.run_id)) as lock:
        opening = asyncio.create_task(journal.open(call(2)))
        await until(somebody_waits)
        journal.close(closed(call(1), said=4))
        await asyncio.to_thread(lock.let_go)
        await opening
    journal.close(closed(call(2), said=5))
    ending = journal.ending(CallStatus.OK)

    assert ending.output_tokens == 3 + 4 + 5
    assert not ending.leftovers
    await database.run(end, journal, CallStatus.OK)
    assert await database.run(rows_of, journal) == [(0, "ok", 3), (1, "ok", 4), (2, "ok", 5)]


async def test_a_call_that_is_cut_short_with_a_failed_run_says_why_the_run_failed(journal: RunJournal) -> None:
    await journal.open(call(0))
    journal.close(replace(closed(call(0)), status=None))

    def fail() -> tuple[str, str]:
        with transaction.atomic():
            ledger.close_run(journal.ending(CallStatus.FAILED, error_category="tool_failed"))
        row = InteractionLog.objects.get(run_id=journal.run.run_id)
        return row.status, row.error_category

    assert await database.run(fail) == ("failed", "tool_failed")
