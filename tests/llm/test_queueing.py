"""Places at a model: never more than there are, none lost, and no workspace waits for another one's flood."""

import asyncio
from collections import Counter
from contextlib import aclosing
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import Busy
from llm.events import Step
from llm.queueing import Places, Ticket
from tests.llm.clock import Clock
from tests.llm.conftest import Configure

ANNA, BEN, CLEO = (UUID(int=number) for number in (1, 2, 3))


def queued(places: Places, *workspaces: UUID) -> list[Ticket]:
    return [places.ask(workspace) for workspace in workspaces]


def served(places: Places, running: list[Ticket], waiting: list[Ticket]) -> list[UUID]:
    """End what runs, one after the other; whose turn came."""
    order = []
    while running:
        running.pop(0).leave()
        for ticket in [one for one in waiting if one.granted.is_set()]:
            waiting.remove(ticket)
            running.append(ticket)
            order.append(ticket.workspace_id)
    return order


def test_without_a_bound_all_run_at_once() -> None:
    places = Places(None)

    assert all(ticket.granted.is_set() for ticket in queued(places, *[ANNA] * 100))
    assert (places.running, places.waiting) == (100, 0)


def test_workspaces_take_turns_whoever_came_first() -> None:
    places = Places(1)
    running = queued(places, ANNA)
    waiting = queued(places, ANNA, ANNA, ANNA, ANNA, BEN, BEN, CLEO)

    assert served(places, running, waiting) == [ANNA, BEN, CLEO, ANNA, BEN, ANNA, ANNA]
    assert (places.running, places.waiting) == (0, 0)


def test_within_a_workspace_the_first_comes_first() -> None:
    places = Places(1)
    [running] = queued(places, ANNA)
    first, second = queued(places, ANNA, ANNA)

    running.leave()

    assert (first.granted.is_set(), second.granted.is_set()) == (True, False)


def test_the_place_told_is_the_number_of_turns_until_ones_own() -> None:
    places = Places(1)
    running = queued(places, ANNA)
    waiting = queued(places, ANNA, ANNA, BEN, ANNA, BEN, CLEO)
    told = {ticket: places.place_of(ticket) for ticket in waiting}
    came: dict[Ticket, int] = {}

    for turn in range(1, 7):
        running.pop().leave()
        [granted] = [one for one in waiting if one.granted.is_set()]
        waiting.remove(granted)
        running.append(granted)
        came[granted] = turn

    assert told == came


def test_nobody_new_passes_those_who_wait() -> None:
    places = Places(1)
    [running] = queued(places, ANNA)
    [waiting] = queued(places, BEN)
    places.limit = 2

    [late] = queued(places, CLEO)

    assert not late.granted.is_set()
    running.leave()
    assert waiting.granted.is_set()
    assert late.granted.is_set()


def test_a_full_queue_turns_callers_away_with_a_time(configure: Configure) -> None:
    configure(default={"PROVIDER": "fake", "MODEL": "fake"}, MAX_WAITING=2)
    places = Places(1)
    queued(places, ANNA, ANNA, BEN)

    with pytest.raises(Busy) as refused:
        places.ask(CLEO)

    assert refused.value.retry_after
    assert (places.running, places.waiting) == (1, 2)


def test_leaving_twice_gives_one_place_back() -> None:
    places = Places(2)
    first, _ = queued(places, ANNA, ANNA)
    waiting = queued(places, BEN, CLEO)

    first.leave()
    first.leave()

    assert [one.granted.is_set() for one in waiting] == [True, False]


async def test_a_caller_hears_its_place_when_it_changes_and_when_it_is_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llm.queueing.LOOK", 0.001)
    places = Places(1)
    running, ahead, mine = queued(places, ANNA, ANNA, ANNA)
    heard = []

    async with aclosing(mine.wait(60)) as steps:
        async for step in steps:
            heard.append(step)
            (running if len(heard) == 1 else ahead).leave()

    assert heard == [
        Step("queue", "queued", {"place": 2}),
        Step("queue", "queued", {"place": 1}),
        Step("queue", "finished"),
    ]


async def test_who_need_not_wait_hears_nothing() -> None:
    [ticket] = queued(Places(1), ANNA)

    assert [step async for step in ticket.wait(60)] == []


async def test_waiting_ends_with_a_typed_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.queueing.LOOK", 0.001)
    clock, places = Clock(), Places(1)
    _, mine = queued(places, ANNA, BEN)
    steps = mine.wait(30, clock=clock)
    await anext(steps)
    clock.pass_(29)
    looking = asyncio.ensure_future(anext(steps))
    for _ in range(5):
        await asyncio.sleep(0.002)
    assert not looking.done()

    clock.pass_(1)

    with pytest.raises(Busy) as refused:
        await looking
    assert refused.value.retry_after
    mine.leave()
    assert (places.running, places.waiting) == (1, 0)


async def test_a_cancelled_waiter_leaves_no_trace() -> None:
    places = Places(1)
    running, mine, other = queued(places, ANNA, BEN, CLEO)

    async def wait() -> None:
        try:
            async for _ in mine.wait(60):
                pass
        finally:
            mine.leave()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert places.waiting == 1
    running.leave()
    assert other.granted.is_set()


@given(
    limit=st.integers(1, 4),
    moves=st.lists(st.tuples(st.sampled_from(["ask", "leave"]), st.integers(0, 2**16)), max_size=120),
)
@settings(max_examples=300, deadline=None)
def test_whatever_comes_and_goes_no_place_is_lost_or_given_twice(limit: int, moves: list[tuple[str, int]]) -> None:
    places, here = Places(limit), []
    for move, number in moves:
        if move == "ask":
            here.append(places.ask(UUID(int=number % 5)))
        elif here:
            here.pop(number % len(here)).leave()
        running = [one for one in here if one.granted.is_set()]
        waiting = [one for one in here if not one.granted.is_set()]
        assert len(running) == places.running <= limit
        assert len(waiting) == places.waiting
        assert not waiting or len(running) == limit, "a place is free and someone waits"
        assert sorted(places.place_of(one) for one in waiting) == list(range(1, len(waiting) + 1))
    for ticket in here:
        ticket.leave()
    assert (places.running, places.waiting) == (0, 0)


@given(crowd=st.lists(st.integers(0, 4), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_between_two_turns_of_one_workspace_every_waiting_one_has_a_turn(crowd: list[int]) -> None:
    places = Places(1)
    running = queued(places, UUID(int=99))
    waiting = queued(places, *(UUID(int=number) for number in crowd))
    left = Counter(ticket.workspace_id for ticket in waiting)
    order = served(places, running, waiting)

    assert Counter(order) == left
    since: set[UUID] = set()
    for workspace in order:
        if workspace in since:
            assert since >= {one for one, count in left.items() if count}
            since = set()
        since.add(workspace)
        left[workspace] -= 1
