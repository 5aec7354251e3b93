"""A model that fails in a row is left alone for a while, and our own tries don't add to an outage."""

import asyncio
from typing import Any

import pytest

from llm import aliases, errors, health
from llm.events import Text
from llm.retries import RetryBudget
from tests.llm.clock import Clock
from tests.llm.router.conftest import Ledger, Routes, Stream, health_of, tell
from tests.support import scripted_provider as act
from tests.support.scripted_provider import ScriptedProvider


class TestBreakers:
    @pytest.fixture(autouse=True)
    def _route(self, route: Routes) -> None:
        route(llm={"BREAKER_FAILURES": 3, "BREAKER_SECONDS": 30.0})

    async def test_a_model_that_fails_in_a_row_is_not_asked_until_a_probe_answers(
        self, ask: Any, provider: ScriptedProvider, second: ScriptedProvider
    ) -> None:
        clock = Clock()
        health_of("one").breaker.clock = clock
        marker = tell(provider, second, act.status(500))
        for _ in range(6):
            assert (await ask(marker)).text == "from two"
        assert len(provider.exchanges("q")) == 3

        clock.pass_(30)
        assert (await ask(marker)).text == "from two"
        assert (await ask(marker)).text == "from two"
        assert len(provider.exchanges("q")) == 4

        provider.script("q", act.text("one again"), act.ok())
        clock.pass_(30)
        assert (await ask(marker)).text == "one again"
        assert (await ask(marker)).text == "one again"
        assert health_of("one").breaker.state == "closed"

    async def test_when_all_are_left_alone_the_call_fails_at_once_and_says_until_when(
        self, ask: Any, provider: ScriptedProvider, second: ScriptedProvider, ledger: Ledger
    ) -> None:
        marker = tell(provider, second, act.status(500))
        second.script("q", act.status(503))
        for name in ("one", "two"):
            health_of(name).breaker.clock = Clock()
        for _ in range(3):
            await ask(marker)
        asked = len(ledger.opened)

        outcome = await ask(marker)

        assert isinstance(outcome.error, errors.ProviderUnavailable)
        assert outcome.error.retry_after == 30.0
        assert outcome.events == []
        assert len(ledger.opened) == asked == 6

    async def test_refusals_and_stops_say_nothing_of_a_models_health(
        self, ask: Any, stream: Stream, provider: ScriptedProvider
    ) -> None:
        for _ in range(4):
            await ask(provider.script("q", act.status(400)))
            events = stream(provider.script("stopped", act.text("one "), act.hang()))
            async for event in events:
                if isinstance(event, Text):
                    break
            await events.aclose()

        assert health_of("one").breaker.failures == 0

    async def test_no_retry_follows_when_the_breaker_has_opened(
        self, ask: Any, route: Routes, provider: ScriptedProvider, second: ScriptedProvider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("llm.retries.BACKOFF", 0.01)
        route(one={"MAX_RETRIES": 5}, llm={"BREAKER_FAILURES": 2})

        assert (await ask(tell(provider, second, act.status(500)))).text == "from two"
        assert len(provider.exchanges("q")) == 2

    async def test_no_retry_follows_when_the_breaker_opened_during_the_pause(
        self, ask: Any, route: Routes, provider: ScriptedProvider, second: ScriptedProvider, ledger: Ledger
    ) -> None:
        route(one={"MAX_RETRIES": 1}, llm={"BREAKER_FAILURES": 2})

        asking = asyncio.create_task(ask(tell(provider, second, act.status(500))))
        while not ledger.closed:
            await asyncio.sleep(0)
        others = health_of("one").breaker.enter()
        assert others is not None
        others.failed("provider_unavailable")

        assert (await asking).text == "from two"
        assert len(provider.exchanges("q")) == 1

    async def test_the_figures_tell_of_it_without_secrets(
        self, ask: Any, provider: ScriptedProvider, second: ScriptedProvider
    ) -> None:
        for _ in range(3):
            await ask(tell(provider, second, act.status(500)))

        one, two = health.figures([aliases.resolve("one"), aliases.resolve("two")])

        assert (one["alias"], one["state"], one["failures"]) == ("one", "open", 3)
        assert one["last_error"] == "provider_unavailable"
        assert 0 < one["opens_in"] <= 30
        assert (two["state"], two["running"], two["waiting"]) == ("closed", 0, 0)
        assert "sk-test" not in repr(health.figures())


class TestRetryBudget:
    async def test_an_outage_is_not_doubled_by_our_own_tries(
        self, ask: Any, route: Routes, provider: ScriptedProvider, second: ScriptedProvider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("llm.retries.BACKOFF", 0.001)
        route(one={"MAX_RETRIES": 2}, llm={"BREAKER_FAILURES": 1000, "RETRY_SHARE": 0.1})
        health_of("one").retries = RetryBudget(clock=Clock())
        marker = tell(provider, second, act.status(500))

        for _ in range(30):
            assert (await ask(marker)).text == "from two"

        assert 30 + 10 <= len(provider.exchanges("q")) <= 30 + 13
