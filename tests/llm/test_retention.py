"""The interaction log's rows go when they are as old as the setting says, and nothing else goes with them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from accounts.models import Workspace
from django_chain import celery_app
from kernel.ids import first_id, new_id
from llm import counters, retention
from llm.counters import Claim, Spent
from llm.models import BudgetCounter, BudgetKind, InteractionLog
from llm.tasks import prune_interaction_log
from tests.llm.locks import Locked

Keep = Callable[[int | None], None]


@pytest.fixture
def workspace(live_database: None) -> Workspace:
    return Workspace.objects.create(name="keeps")


@pytest.fixture
def keep(settings: Settings) -> Keep:
    """Set LLM["LOG_DAYS"]."""

    def set_days(days: int | None) -> None:
        settings.DJANGO_CHAIN = {"LLM": {"LOG_DAYS": days}}

    return set_days


def row(workspace: Workspace, days: float, *, number: int = 0, **values: Any) -> InteractionLog:
    """A row as it stands after so many days: its id tells when it was made, as every id does."""
    at = timezone.now() - timedelta(days=days)
    made = InteractionLog(
        id=UUID(int=first_id(at).int + new_id().int % 2**60 + number),
        workspace=workspace,
        **({"run_id": new_id(), "status": "ok"} | values),
    )
    made.save(force_insert=True)
    InteractionLog.objects.filter(id=made.id).update(created_at=at)
    return made


def left(workspace: Workspace) -> set[UUID]:
    return set(InteractionLog.objects.filter(workspace=workspace).values_list("id", flat=True))


def test_ids_are_found_by_the_time_at_which_they_were_made() -> None:
    before, made, after = timezone.now(), new_id(), timezone.now() + timedelta(milliseconds=2)
    assert first_id(before) < made < first_id(after)
    assert first_id(datetime(2020, 1, 1, tzinfo=UTC)) < first_id(datetime(2020, 1, 1, 0, 0, 0, 1000, tzinfo=UTC))


def test_rows_older_than_the_setting_go(workspace: Workspace, keep: Keep) -> None:
    old, young = [row(workspace, days) for days in (400, 30.01)], [row(workspace, days) for days in (29.99, 0)]
    keep(None)
    prune_interaction_log()
    assert left(workspace) == {each.id for each in old + young}, "without the setting the log is kept"
    keep(30)
    prune_interaction_log()
    assert left(workspace) == {each.id for each in young}
    prune_interaction_log()
    assert left(workspace) == {each.id for each in young}, "again is no more"


def test_the_longest_time_that_the_setting_takes_keeps_all(workspace: Workspace, keep: Keep) -> None:
    old = row(workspace, 10_000)
    keep(36_500)
    retention.prune()
    assert left(workspace) == {old.id}
    assert first_id(datetime(1900, 1, 1, tzinfo=UTC)) == UUID(int=0)


def test_a_run_that_is_under_way_keeps_all_its_rows(workspace: Workspace, keep: Keep) -> None:
    run_id = new_id()
    first = row(workspace, 40, run_id=run_id, call=0)
    second = row(workspace, 40, run_id=run_id, call=1, status="started")
    keep(30)
    retention.prune()
    assert left(workspace) == {first.id, second.id}
    InteractionLog.objects.filter(id=second.id).update(status="interrupted")
    retention.prune()
    assert left(workspace) == set()


def test_many_rows_go_in_bounded_parts_the_oldest_first(
    workspace: Workspace, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(30)
    retention.prune()  # those of others
    monkeypatch.setattr(retention, "_BATCH", 2)
    monkeypatch.setattr(retention, "_MOST", 4)
    rows = [row(workspace, 100 - number) for number in range(7)]
    assert retention.prune() == 4
    assert left(workspace) == {each.id for each in rows[4:]}
    assert retention.prune() == 3
    assert left(workspace) == set()


def test_rows_that_somebody_holds_are_left_for_the_next_time(workspace: Workspace, keep: Keep) -> None:
    held = row(workspace, 40)
    row(workspace, 35)
    keep(30)
    with Locked(InteractionLog.objects.filter(id=held.id)):
        retention.prune()
        assert left(workspace) == {held.id}
    retention.prune()
    assert left(workspace) == set()


def test_two_workers_at_once_delete_each_row_once(
    workspace: Workspace, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(30)
    retention.prune()
    monkeypatch.setattr(retention, "_BATCH", 3)
    for number in range(40):
        row(workspace, 40, number=number)

    def work(_: int) -> int:
        try:
            return retention.prune()
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(work, range(2))) == 40
    assert left(workspace) == set()


def test_what_budgets_count_stays(workspace: Workspace, keep: Keep) -> None:
    run_id = new_id()
    claim = Claim(key=BudgetKind.MONEY, kind=BudgetKind.MONEY, amount=Decimal(2), limit=Decimal(10))
    with transaction.atomic():
        counters.take(workspace.id, [claim], run_id=run_id, call=0)
        counters.settle(workspace.id, run_id, [Spent(call=0, tokens=5, cost=Decimal("1.5"))], rest="free")
    row(workspace, 2, run_id=run_id, cost=Decimal("1.5"))
    keep(1)
    retention.prune()
    assert left(workspace) == set()
    assert BudgetCounter.objects.get(workspace=workspace).used == Decimal("1.5")


def test_old_rows_are_found_by_an_index(workspace: Workspace) -> None:
    old = InteractionLog.objects.filter(id__lt=first_id(timezone.now() - timedelta(days=30))).order_by("id")
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        plan = old.explain()
        cursor.execute("RESET enable_seqscan")
    assert "Index Cond: (id <" in plan, plan


def test_beat_knows_the_task() -> None:
    assert "llm.tasks.prune_interaction_log" in {each["task"] for each in celery_app.conf.beat_schedule.values()}
    assert prune_interaction_log.name == "llm.tasks.prune_interaction_log"
