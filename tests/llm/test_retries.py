"""How often and how soon the same model is asked again."""

import pytest

from llm import errors, retries
from llm.retries import FLOOR, RetryBudget
from tests.llm.clock import Clock
from tests.llm.conftest import Configure


class _Response:
    def __init__(self, seconds: str) -> None:
        self.status_code = 429
        self.headers = {"Retry-After": seconds}


class _Limited(Exception):
    def __init__(self, seconds: str) -> None:
        self.response = _Response(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock, configure: Configure) -> RetryBudget:
    configure(default={"PROVIDER": "fake", "MODEL": "fake"}, RETRY_SHARE=0.2)
    return RetryBudget(clock=clock)


def test_an_outage_gets_the_share_of_its_calls_and_the_floor_in_retries(budget: RetryBudget) -> None:
    granted = 0
    for _ in range(1000):
        budget.call()
        granted += sum(budget.take() for _ in range(2))

    assert 200 <= granted <= 200 + FLOOR


def test_calls_without_failures_save_up_no_more_than_the_floor(budget: RetryBudget) -> None:
    for _ in range(10_000):
        budget.call()

    assert sum(budget.take() for _ in range(100)) == FLOOR


def test_time_gives_a_rarely_used_model_its_retries_back(budget: RetryBudget, clock: Clock) -> None:
    while budget.take():
        pass
    clock.pass_(9.9)
    assert not budget.take()
    clock.pass_(0.2)
    assert budget.take()
    clock.pass_(1e6)
    assert budget.tokens == FLOOR


def test_pauses_double_and_are_never_all_the_same() -> None:
    for number in range(4):
        pauses = {retries.delay(errors.ProviderUnavailable(), number) or 0 for _ in range(50)}

        assert len(pauses) > 1
        assert all(retries.BACKOFF * 2**number / 2 <= pause <= retries.BACKOFF * 2**number for pause in pauses)


def test_a_provider_is_never_asked_before_the_time_it_named() -> None:
    failure = errors.ProviderRateLimited()
    failure.__cause__ = _Limited("7")

    pauses = {retries.delay(failure, 0) or 0 for _ in range(50)}

    assert len(pauses) > 1
    assert all(7 <= pause <= 7.7 for pause in pauses)


@pytest.mark.parametrize(
    "failure", [errors.ProviderRefused(), errors.ProviderMisconfigured(), errors.ProviderBadResponse()]
)
def test_what_would_fail_again_is_not_tried_again(failure: errors.ProviderError) -> None:
    assert retries.delay(failure, 0) is None
