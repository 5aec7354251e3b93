"""Budgets, with real concurrency on the real database: never overshot, settled to what was used, given back once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, connections, transaction
from pytest_django import Settings

from accounts.models import Workspace
from kernel.errors import Conflict
from kernel.ids import new_id
from llm import budgets, counters, ledger
from llm.configuration import Bound, Configuration, Price
from llm.errors import BudgetExceeded, PriceMissing
from llm.journal import Call, Closed, Ending, RunRef
from llm.models import BudgetCounter, CallStatus, InteractionLog, Reservation
from llm.signals import budget_exceeded
from llm.usage import Usage
from tests.conftest import Person

PRICE = Price(
    provider="openai",
    model="m",
    input=Decimal("2.5"),
    output=Decimal(10),
    cached_input=Decimal("1.25"),
    valid_from=datetime(2020, 1, 1, tzinfo=UTC),
)


@pytest.fixture
def workspace(live_database: None) -> Workspace:
    return Workspace.objects.create(name="counted")


def holding(workspace: Workspace, *bounds: Bound) -> Configuration:
    return Configuration(workspace_id=workspace.id, generation=0, budgets=bounds)


def bound(kind: str, limit: float | str, **more: Any) -> Bound:
    return Bound(kind=kind, limit=Decimal(str(limit)), **more)


def run_of(workspace: Workspace, user_id: int | None = None) -> RunRef:
    return RunRef(run_id=new_id(), workspace_id=workspace.id, user_id=user_id)


def call(number: int = 0, *, text: str = "x" * 20, most: int | None = 100, price: Price | None = PRICE) -> Call:
    return Call(
        number=number,
        alias="default",
        provider="openai",
        model="m",
        parameters={},
        messages=[{"role": "user", "content": text}],
        price=price,
        max_output_tokens=most,
    )


def closed(of: Call, *, asked: int = 7, said: int = 5, status: CallStatus | None = CallStatus.OK) -> Closed:
    return Closed(call=of, status=status, usage=Usage(asked, said, estimated=False))


def open_run(configuration: Configuration, run: RunRef) -> None:
    with budgets.refusals_told(), transaction.atomic():
        ledger.open_run(run, in_chat=False)
        budgets.begin_run(configuration, run)


def close_run(run: RunRef, *calls: Closed, status: CallStatus = CallStatus.OK, **more: Any) -> None:
    with transaction.atomic():
        ledger.close_run(Ending(run=run, status=status, calls=calls, leftovers=not calls, **more))


def at_once(works: list[Callable[[], Any]], *, threads: int = 10) -> list[Any]:
    """Run all in threads that begin together, as many as the pool has connections for; results or exceptions."""
    barrier = threading.Barrier(min(threads, len(works)))

    def work(index: int) -> Any:
        try:
            if index < barrier.parties:
                barrier.wait()
            return works[index]()
        except Exception as error:  # noqa: BLE001  the outcome is what is tested
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(len(works))))


def counted(workspace: Workspace) -> dict[str, tuple[Decimal, Decimal]]:
    rows = BudgetCounter.objects.filter(workspace=workspace)
    return {row.key: (row.used, row.reserved) for row in rows}


class TestConcurrency:
    def test_two_hundred_messages_at_once_never_pass_the_bound(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("messages_per_minute", 37))
        before = datetime.now(UTC).replace(second=0, microsecond=0)
        results = at_once([lambda: open_run(configuration, run_of(workspace)) for _ in range(200)])
        refused = [error for error in results if isinstance(error, BudgetExceeded)]
        assert all(result is None or isinstance(result, BudgetExceeded) for result in results)
        windows = BudgetCounter.objects.filter(workspace=workspace).values_list("window", "used")
        assert all(used <= 37 for _, used in windows)
        if datetime.now(UTC).replace(second=0, microsecond=0) == before:  # else the minute ended meanwhile
            assert len(refused) == 163
        assert InteractionLog.objects.filter(workspace=workspace).count() == 200 - len(refused)

    def test_two_hundred_runs_at_once_have_the_places_there_are(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("concurrent_runs", 5))
        runs = [run_of(workspace) for _ in range(200)]
        results = at_once([lambda run=run: open_run(configuration, run) for run in runs])
        accepted = [run for run, result in zip(runs, results, strict=True) if result is None]
        assert len(accepted) == 5
        assert counted(workspace) == {"concurrent_runs": (0, 5)}
        at_once([lambda run=run: close_run(run) for run in accepted])
        assert counted(workspace) == {"concurrent_runs": (0, 0)}
        assert not Reservation.objects.filter(workspace=workspace).exists()

    def test_two_hundred_calls_at_once_hold_back_no_more_than_there_is(self, workspace: Workspace) -> None:
        most = sum(budgets.most_tokens(call()))
        configuration = holding(
            workspace, bound("tokens_per_day", most * 20 + most // 2), bound("money_per_month", "1000")
        )
        runs = [run_of(workspace) for _ in range(200)]
        for run in runs:
            open_run(configuration, run)
        results = at_once([lambda run=run: ledger.open_call(run, call(), (), configuration) for run in runs])
        made = [run for run, result in zip(runs, results, strict=True) if result is None]
        assert len(made) == 20
        assert all(isinstance(result, BudgetExceeded) for result in results if result is not None)
        assert counted(workspace)["tokens_per_day"] == (0, most * 20)

        at_once([lambda run=run: close_run(run, closed(call())) for run in made])
        cost = ledger.cost_of(Usage(7, 5, estimated=False), 0, PRICE)
        assert cost is not None
        assert counted(workspace) == {"tokens_per_day": (240, 0), "money_per_month": (20 * cost, 0)}
        rows = InteractionLog.objects.filter(workspace=workspace, status="ok")
        assert sum(row.cost for row in rows) == 20 * cost

    def test_nobody_waits_for_ever_whatever_is_counted_side_by_side(self, workspace: Workspace, person: Person) -> None:
        """Every transaction takes other counters than its neighbour, in another order of its own."""
        kinds = ["messages_per_minute", "concurrent_runs", "tokens_per_day", "money_per_month"]
        every = [bound(kind, 10**6, per=per) for kind in kinds for per in ("workspace", "user")]
        sets = [holding(workspace, *every), holding(workspace, *every[::-1]), holding(workspace, *every[2:6])]

        def live(index: int) -> None:
            configuration, run = sets[index % 3], run_of(workspace, person.user.pk if index % 2 else None)
            open_run(configuration, run)
            ledger.open_call(run, call(), (), configuration)
            ledger.open_call(run, call(1), [closed(call())], sets[(index + 1) % 3])
            close_run(run, closed(call(1)))

        results = at_once([lambda index=index: live(index) for index in range(120)])
        assert results == [None] * 120
        assert {reserved for _, reserved in counted(workspace).values()} == {Decimal(0)}

    def test_two_that_end_the_same_run_give_back_once(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("concurrent_runs", 9), bound("tokens_per_day", 10**6))
        for _ in range(10):
            kept, run = run_of(workspace), run_of(workspace)
            open_run(configuration, kept)
            open_run(configuration, run)
            ledger.open_call(run, call(), (), configuration)
            at_once([lambda run=run: close_run(run, closed(call())) for _ in range(4)])
            assert counted(workspace)["concurrent_runs"] == (0, 1)
            close_run(kept)
        assert counted(workspace)["tokens_per_day"] == (120, 0)


class TestRefusals:
    def test_each_person_has_a_count_of_their_own(self, workspace: Workspace, make: Callable[[], Person]) -> None:
        one, two = make().user.pk, make().user.pk
        configuration = holding(workspace, bound("concurrent_runs", 1, per="user"))
        open_run(configuration, run_of(workspace, one))
        open_run(configuration, run_of(workspace, two))
        with pytest.raises(BudgetExceeded):
            open_run(configuration, run_of(workspace, one))

    def test_callers_without_an_account_share_one_count(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("concurrent_runs", 1, per="user"))
        open_run(configuration, run_of(workspace))
        with pytest.raises(BudgetExceeded):
            open_run(configuration, run_of(workspace))

    def test_a_bound_of_one_person_is_nobody_elses(self, workspace: Workspace, make: Callable[[], Person]) -> None:
        one, two = make().user.pk, make().user.pk
        configuration = holding(workspace, bound("tokens_per_day", 1, user_id=one))
        assert budgets.holds_calls(configuration, one)
        assert not budgets.holds_calls(configuration, two)
        assert not budgets.holds_calls(configuration, None)

    def test_the_tightest_of_several_bounds_holds(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("concurrent_runs", 3), bound("concurrent_runs", 1))
        open_run(configuration, run_of(workspace))
        with pytest.raises(BudgetExceeded, match="1 answers at once"):
            open_run(configuration, run_of(workspace))

    def test_what_is_refused_leaves_no_trace(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("messages_per_minute", 5), bound("concurrent_runs", 1))
        open_run(configuration, run_of(workspace))
        window = BudgetCounter.objects.get(workspace=workspace, key="messages_per_minute").window
        with pytest.raises(BudgetExceeded):
            open_run(configuration, run_of(workspace))
        after = BudgetCounter.objects.filter(workspace=workspace, key="messages_per_minute", window=window)
        assert after.get().used == 1
        assert InteractionLog.objects.filter(workspace=workspace).count() == 1

    def test_when_to_come_back_is_the_end_of_the_window(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("tokens_per_day", 400))
        run = run_of(workspace)
        open_run(configuration, run)
        ledger.open_call(run, call(), (), configuration)
        close_run(run, closed(call(), asked=200, said=150))
        other = run_of(workspace)
        open_run(configuration, other)
        with pytest.raises(BudgetExceeded) as caught:
            ledger.open_call(other, call(), (), configuration)
        now = datetime.now(UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        assert caught.value.retry_after == pytest.approx((midnight - now).total_seconds(), abs=5)

    def test_what_others_only_hold_back_may_soon_be_free(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("tokens_per_day", sum(budgets.most_tokens(call()))))
        first, second = run_of(workspace), run_of(workspace)
        open_run(configuration, first)
        open_run(configuration, second)
        ledger.open_call(first, call(), (), configuration)
        with pytest.raises(BudgetExceeded) as caught:
            ledger.open_call(second, call(), (), configuration)
        assert caught.value.retry_after == 2.0
        close_run(first)  # never asked
        ledger.open_call(second, call(), (), configuration)

    def test_a_call_that_is_larger_than_its_budget_is_told_so(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("tokens_per_day", 50))
        run = run_of(workspace)
        open_run(configuration, run)
        with pytest.raises(BudgetExceeded, match="ask for less") as caught:
            ledger.open_call(run, call(), (), configuration)
        assert caught.value.retry_after is None

    def test_money_can_not_be_counted_without_a_price(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("money_per_month", 5))
        run = run_of(workspace)
        open_run(configuration, run)
        with pytest.raises(PriceMissing, match="'m' of 'openai' has no price"):
            ledger.open_call(run, call(price=None), (), configuration)
        assert counted(workspace) == {}

    def test_the_signal_tells_of_it_after_the_rollback(self, workspace: Workspace) -> None:
        told: list[dict[str, Any]] = []

        def receiver(**more: Any) -> None:
            assert not connection.in_atomic_block
            told.append(more)

        budget_exceeded.connect(receiver)
        try:
            configuration = holding(workspace, bound("concurrent_runs", 1))
            open_run(configuration, run_of(workspace))
            assert told == []
            with pytest.raises(BudgetExceeded):
                open_run(configuration, run_of(workspace))
        finally:
            budget_exceeded.disconnect(receiver)
        [one] = told
        assert (one["workspace_id"], one["kind"], one["user_id"]) == (workspace.id, "concurrent_runs", None)


class TestSettling:
    def test_a_call_is_settled_when_the_next_one_is_opened(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("tokens_per_day", 10**6))
        run = run_of(workspace)
        open_run(configuration, run)
        ledger.open_call(run, call(), (), configuration)
        ledger.open_call(run, call(1), [closed(call())], configuration)
        assert counted(workspace)["tokens_per_day"] == (12, sum(budgets.most_tokens(call(1))))

    def test_an_answer_given_again_costs_nothing(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("tokens_per_day", 1), bound("money_per_month", "0.000001"))
        run = run_of(workspace)
        open_run(configuration, run)
        again = replace(call(1, price=None), cached=True)
        ledger.open_call(run, again, (), configuration)
        assert counted(workspace) == {}
        assert not ledger.must_write(run, replace(again, number=0), configuration)

    @pytest.mark.parametrize("code", ["context_exceeded", "provider_refused"])
    def test_a_prompt_that_was_refused_costs_nothing(self, workspace: Workspace, code: str) -> None:
        configuration = holding(workspace, bound("tokens_per_day", 10**6), bound("money_per_month", 10))
        run = run_of(workspace)
        open_run(configuration, run)
        ledger.open_call(run, call(), (), configuration)
        refused = replace(closed(call(), said=0, status=CallStatus.FAILED), error_category=code)
        close_run(run, refused)
        assert counted(workspace) == {"tokens_per_day": (0, 0), "money_per_month": (0, 0)}
        [row] = InteractionLog.objects.filter(run_id=run.run_id)
        assert (row.error_category, row.cost) == (code, 0)

    def test_the_calls_of_a_dead_process_count_to_the_full(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("tokens_per_day", 10**6), bound("concurrent_runs", 1))
        run = run_of(workspace)
        open_run(configuration, run)
        ledger.open_call(run, call(), (), configuration)
        most = sum(budgets.most_tokens(call()))
        with transaction.atomic():
            again = ledger.reopen_run(replace(run, attempt=2), asked=Usage(6, 0, estimated=True))
        # The run goes on: it keeps its place.
        assert counted(workspace) == {"tokens_per_day": (most, 0), "concurrent_runs": (0, 1)}
        close_run(again, unknown=True)
        assert counted(workspace) == {"tokens_per_day": (most, 0), "concurrent_runs": (0, 0)}
        first, second = InteractionLog.objects.filter(run_id=run.run_id).order_by("call")
        assert (first.status, first.input_tokens, first.usage_estimated) == ("interrupted", 6, True)
        assert first.cost == ledger.cost_of(Usage(6, 0, estimated=True), 0, PRICE)
        assert (second.status, second.call, second.attempt) == ("ok", 1, 2)

    def test_a_process_that_lost_its_run_opens_no_call_and_writes_no_end(self, workspace: Workspace) -> None:
        configuration = holding(workspace, bound("tokens_per_day", 10**6), bound("concurrent_runs", 1))
        lost = run_of(workspace)
        open_run(configuration, lost)
        with transaction.atomic():
            again = ledger.reopen_run(replace(lost, attempt=2))
        for number in (0, 1):
            with pytest.raises(Conflict):
                ledger.open_call(lost, call(number), [closed(call())] if number else (), configuration)
        close_run(again, closed(call(1), said=3))
        before = list(InteractionLog.objects.filter(run_id=lost.run_id).order_by("call").values())
        close_run(lost, closed(call(0), said=99), closed(call(1), said=99))
        assert list(InteractionLog.objects.filter(run_id=lost.run_id).order_by("call").values()) == before
        assert [row["output_tokens"] for row in before] == [0, 3]
        assert counted(workspace) == {"concurrent_runs": (0, 0)}

    def test_an_opening_and_the_end_of_its_run_do_not_leave_an_open_row(self, workspace: Workspace) -> None:
        """Whichever comes first: the other finds it done."""
        configuration = holding(workspace, bound("tokens_per_day", 10**9))
        for _ in range(15):
            run = run_of(workspace)
            open_run(configuration, run)
            ledger.open_call(run, call(), (), configuration)
            ending = Ending(run=run, status=CallStatus.STOPPED, calls=(closed(call()),), leftovers=True)

            def end(ending: Ending = ending) -> None:
                with transaction.atomic():
                    ledger.close_run(ending)

            opened, ended = at_once([lambda run=run: ledger.open_call(run, call(1), (), configuration), end])
            assert ended is None
            assert opened is None or isinstance(opened, Conflict)
            assert not InteractionLog.objects.filter(run_id=run.run_id, status="started").exists()
            assert not Reservation.objects.filter(run_id=run.run_id).exists()
        assert counted(workspace)["tokens_per_day"] == (15 * 12, 0)

    def test_the_end_of_a_run_waits_for_an_opening_under_way(self, workspace: Workspace) -> None:
        """Also if it has nothing to write of the calls before: it would not see the new row, nor be held up by it."""
        nothing, run = holding(workspace), run_of(workspace)
        open_run(nothing, run)
        ledger.open_call(run, call(1), (closed(call(0)),), nothing)
        inserted, ended = threading.Event(), threading.Event()

        def opening() -> None:
            with transaction.atomic():
                ledger.open_call(run, call(2), (), nothing)
                inserted.set()
                ended.wait(0.5)  # the end comes first, or waits for our commit

        def ending() -> None:
            inserted.wait(10)
            with transaction.atomic():
                calls = (closed(call(1), status=None),)
                ledger.close_run(Ending(run=run, status=CallStatus.STOPPED, calls=calls, leftovers=True))
            ended.set()

        assert at_once([opening, ending]) == [None, None]
        rows = InteractionLog.objects.filter(run_id=run.run_id).order_by("call")
        assert [row.status for row in rows] == ["ok", "stopped", "stopped"]


class TestBounds:
    def test_without_budgets_a_call_has_its_models_bound_or_none(self, workspace: Workspace) -> None:
        assert budgets.output_bound(holding(workspace), None, user_id=None) is None
        assert budgets.output_bound(holding(workspace), 7, user_id=None) == 7

    def test_a_budget_bounds_an_answer_that_nothing_else_does(self, workspace: Workspace, settings: Settings) -> None:
        settings.DJANGO_CHAIN = {"LLM": {"RESERVE_OUTPUT_TOKENS": 321}}
        configuration = holding(workspace, bound("tokens_per_day", 10**6))
        assert budgets.output_bound(configuration, None, user_id=None) == 321
        assert budgets.output_bound(configuration, 7, user_id=None) == 7
        assert budgets.most_tokens(call(most=None))[1] == 321

    def test_no_text_has_more_tokens_than_bytes(self) -> None:
        text = "naïve 🙂 文字"
        assert budgets.most_tokens(call(text=text))[0] >= len(text.encode())

    @pytest.mark.parametrize(
        ("kind", "now", "window"),
        [
            ("messages_per_minute", "2026-03-01T00:00:59.999999+00:00", "2026-03-01T00:00:00+00:00"),
            ("tokens_per_day", "2026-03-01T01:30:00+02:00", "2026-02-28T00:00:00+00:00"),
            ("money_per_month", "2026-03-01T00:00:00+00:00", "2026-03-01T00:00:00+00:00"),
            ("concurrent_runs", "2026-03-01T00:00:00+00:00", "1970-01-01T00:00:00+00:00"),
        ],
    )
    def test_windows_are_those_of_utc(self, kind: str, now: str, window: str) -> None:
        assert counters.window_of(kind, datetime.fromisoformat(now)) == datetime.fromisoformat(window)

    def test_the_database_counts_in_the_same_windows(self, workspace: Workspace) -> None:
        kinds = ["messages_per_minute", "concurrent_runs", "tokens_per_day", "money_per_month"]
        configuration = holding(workspace, *(bound(kind, 10**6) for kind in kinds))
        run = run_of(workspace)
        before = datetime.now(UTC)
        with connection.cursor() as cursor:
            cursor.execute("SET timezone TO 'Asia/Kolkata'")
        try:
            open_run(configuration, run)
            ledger.open_call(run, call(), (), configuration)
        finally:
            # The connection goes back to a pool, with its settings.
            with connection.cursor() as cursor:
                cursor.execute("RESET timezone")
            connections.close_all()
        rows = dict(BudgetCounter.objects.filter(workspace=workspace).values_list("key", "window"))
        after = datetime.now(UTC)
        for kind in kinds:
            assert rows[kind] in (counters.window_of(kind, before), counters.window_of(kind, after))


def test_run_ids_are_no_ones_else(workspace: Workspace) -> None:
    """Settling one run leaves the others' reservations."""
    configuration = holding(workspace, bound("tokens_per_day", 10**6))
    one, two = run_of(workspace), run_of(workspace)
    for run in (one, two):
        open_run(configuration, run)
        ledger.open_call(run, call(), (), configuration)
    close_run(one, closed(call()))
    held: list[UUID] = list(Reservation.objects.filter(workspace=workspace).values_list("run_id", flat=True))
    assert held == [two.run_id]
