"""A model that fails in a row is left alone, tried once, and trusted again; by a clock that the test moves."""

from collections.abc import Iterator
from typing import Any

import pytest

from llm.breaker import Breaker, Passage
from llm.signals import breaker_closed, breaker_opened
from tests.llm.clock import Clock
from tests.llm.conftest import Configure


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock, configure: Configure) -> Breaker:
    configure(default={"PROVIDER": "fake", "MODEL": "fake"}, BREAKER_FAILURES=3, BREAKER_SECONDS=30.0)
    return Breaker("default", clock=clock)


@pytest.fixture
def told() -> Iterator[list[tuple[str, str]]]:
    """The signals that were sent."""
    heard: list[tuple[str, str]] = []

    def opened(alias: str, **_: Any) -> None:
        heard.append(("opened", alias))

    def closed(alias: str, **_: Any) -> None:
        heard.append(("closed", alias))

    breaker_opened.connect(opened)
    breaker_closed.connect(closed)
    yield heard
    breaker_opened.disconnect(opened)
    breaker_closed.disconnect(closed)


def entered(breaker: Breaker) -> Passage:
    passage = breaker.enter()
    assert passage is not None
    return passage


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        entered(breaker).failed("provider_unavailable")


def test_it_opens_after_failures_in_a_row_and_lets_nobody_through(
    breaker: Breaker, told: list[tuple[str, str]]
) -> None:
    fail(breaker, 2)
    assert (breaker.state, breaker.passable, told) == ("closed", True, [])

    fail(breaker)

    assert (breaker.state, breaker.failures, breaker.last_error) == ("open", 3, "provider_unavailable")
    assert breaker.enter() is None
    assert breaker.wait == 30.0
    assert told == [("opened", "default")]


def test_an_answer_in_between_begins_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 2)
    entered(breaker).answered()
    fail(breaker, 2)

    assert breaker.state == "closed"


def test_a_model_that_breaks_off_every_answer_opens_it(breaker: Breaker) -> None:
    for _ in range(3):
        passage = entered(breaker)
        passage.heard()
        passage.failed("provider_truncated")

    assert breaker.state == "open"


def test_one_probe_at_a_time_goes_through_when_it_is_half_open(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.pass_(29.9)
    assert breaker.enter() is None
    clock.pass_(0.1)

    assert breaker.state == "half_open"
    assert breaker.enter() is not None
    assert breaker.enter() is None


def test_a_probe_that_fails_opens_it_for_as_long_again(
    breaker: Breaker, clock: Clock, told: list[tuple[str, str]]
) -> None:
    fail(breaker, 3)
    clock.pass_(31)

    fail(breaker)

    assert breaker.state == "open"
    assert breaker.wait == 30.0
    clock.pass_(30)
    assert breaker.enter() is not None
    assert told == [("opened", "default")]


def test_a_probe_that_answers_closes_it(breaker: Breaker, clock: Clock, told: list[tuple[str, str]]) -> None:
    fail(breaker, 3)
    clock.pass_(31)

    entered(breaker).answered()

    assert (breaker.state, breaker.failures) == ("closed", 0)
    assert told == [("opened", "default"), ("closed", "default")]


def test_a_probe_that_speaks_lets_others_through_before_it_ends(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.pass_(31)
    probe = entered(breaker)

    probe.heard()

    assert breaker.state == "closed"
    assert breaker.enter() is not None
    probe.failed("provider_truncated")
    assert (breaker.state, breaker.failures) == ("closed", 1)


def test_a_probe_that_is_cancelled_is_no_verdict_and_frees_the_way(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.pass_(31)

    entered(breaker).leave()

    assert breaker.state == "half_open"
    assert breaker.enter() is not None


def test_calls_that_were_under_way_when_it_opened_neither_close_nor_prolong_it(breaker: Breaker, clock: Clock) -> None:
    late = [entered(breaker) for _ in range(2)]
    fail(breaker, 3)
    clock.pass_(10)

    late[0].failed("provider_timeout")
    assert breaker.wait == 20.0
    late[1].heard()
    late[1].answered()
    assert breaker.state == "open"
    clock.pass_(20)
    probe = entered(breaker)
    late[1].answered()
    late[1].leave()
    assert breaker.enter() is None
    probe.answered()
    assert breaker.passable
