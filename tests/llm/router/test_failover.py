"""Routes over providers that fail: who waits for the answer notices nothing, and each request is accounted for."""

from typing import Any

import pytest

from kernel.errors import TooLarge
from llm import errors
from llm.errors import BudgetExceeded
from llm.events import ModelFailed, ModelFinished, ModelStarted, Text
from llm.models import CallStatus
from tests.llm.router.conftest import Ledger, Routes, Stream, health_of, model, tell
from tests.support import scripted_provider as act
from tests.support.scripted_provider import Action, ScriptedProvider
from tests.support.server import free_port

FAULTS = [
    pytest.param([act.status(500)], "provider_unavailable", id="500"),
    pytest.param([act.status(429)], "provider_rate_limited", id="429"),
    pytest.param([act.status(401)], "provider_misconfigured", id="401"),
    pytest.param([act.status(404)], "provider_misconfigured", id="404"),
    pytest.param([act.begin(), act.role(), act.hang()], "provider_timeout", id="hang"),
    pytest.param([act.begin(), act.cut()], "provider_unavailable", id="cut"),
    pytest.param([act.role(), act.done()], "provider_truncated", id="no finish"),
    pytest.param([act.raw(b"data: {not json\n\n")], "provider_bad_response", id="garbage"),
]


class TestFailover:
    @pytest.mark.parametrize(("fault", "code"), FAULTS)
    async def test_the_next_model_answers_and_both_requests_have_their_row(
        self,
        ask: Any,
        route: Routes,
        provider: ScriptedProvider,
        second: ScriptedProvider,
        ledger: Ledger,
        fault: list[Action],
        code: str,
    ) -> None:
        # Of the others, a slow machine would make a timeout, too.
        route(one={"FIRST_TOKEN_TIMEOUT": 0.3} if code == "provider_timeout" else {})

        outcome = await ask(tell(provider, second, *fault))

        assert (outcome.error, outcome.text) == (None, "from two")
        kinds = [type(event) for event in outcome.events if not isinstance(event, Text)]
        assert kinds == [ModelStarted, ModelFailed, ModelStarted, ModelFinished]
        assert ledger.rows == [(0, "one", CallStatus.FAILED, code), (1, "two", CallStatus.OK, "")]
        assert (len(provider.exchanges("q")), len(second.exchanges("q"))) == (1, 1)
        assert ledger.closed[0].usage.estimated
        assert ledger.closed[1].usage[:2] == (11, 2)
        assert outcome.finished.call == 1

    async def test_a_provider_that_is_gone_is_passed_over(self, ask: Any, route: Routes, ledger: Ledger) -> None:
        route(one=model(f"http://127.0.0.1:{free_port()}/v1"))

        assert (await ask("hello")).text == "echo: hello"
        assert ledger.rows == [(0, "one", CallStatus.FAILED, "provider_unavailable"), (1, "two", CallStatus.OK, "")]

    async def test_an_answer_that_has_begun_is_never_begun_anew(
        self, ask: Any, route: Routes, provider: ScriptedProvider, second: ScriptedProvider, ledger: Ledger
    ) -> None:
        route(one={"MAX_RETRIES": 3})

        outcome = await ask(tell(provider, second, act.text("half "), act.cut()))

        assert isinstance(outcome.error, errors.ProviderTruncated)
        assert outcome.text == "half "
        assert second.exchanges() == []
        assert ledger.rows == [(0, "one", CallStatus.FAILED, "provider_truncated")]

    @pytest.mark.parametrize("code", [400, 413, 422])
    async def test_what_one_refuses_is_not_offered_to_the_next(
        self, ask: Any, route: Routes, provider: ScriptedProvider, second: ScriptedProvider, code: int
    ) -> None:
        route()

        outcome = await ask(tell(provider, second, act.status(code)))

        assert isinstance(outcome.error, errors.ProviderRefused)
        assert second.exchanges() == []

    async def test_when_all_fail_the_last_failure_is_told(
        self, ask: Any, route: Routes, provider: ScriptedProvider, second: ScriptedProvider, ledger: Ledger
    ) -> None:
        route()
        second.script("q", act.status(401))

        outcome = await ask(provider.script("q", act.status(500)))

        assert isinstance(outcome.error, errors.ProviderMisconfigured)
        assert [row[3] for row in ledger.rows] == ["provider_unavailable", "provider_misconfigured"]

    async def test_a_model_has_its_retries_first(
        self, ask: Any, route: Routes, provider: ScriptedProvider, second: ScriptedProvider, ledger: Ledger,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("llm.retries.BACKOFF", 0.01)
        route(one={"MAX_RETRIES": 2})

        assert (await ask(tell(provider, second, act.status(503)))).text == "from two"
        assert [row[:2] for row in ledger.rows] == [(0, "one"), (1, "one"), (2, "one"), (3, "two")]
        assert len(provider.exchanges("q")) == 3

    async def test_each_model_has_retries_of_its_own(
        self, ask: Any, route: Routes, provider: ScriptedProvider, second: ScriptedProvider, ledger: Ledger,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("llm.retries.BACKOFF", 0.01)
        route(one={"MAX_RETRIES": 1}, two={"MAX_RETRIES": 1})
        second.script_tries("q", [act.status(503)], [act.text("from two"), act.ok()])

        assert (await ask(provider.script("q", act.status(503)))).text == "from two"
        assert [row[1] for row in ledger.rows] == ["one", "one", "two", "two"]

    async def test_a_model_that_failed_holds_no_place_while_the_next_answers(
        self, stream: Stream, route: Routes, provider: ScriptedProvider, second: ScriptedProvider
    ) -> None:
        route(one={"MAX_CONCURRENT": 1})
        second.script("q", act.text("from two"), act.hang())

        events = stream(provider.script("q", act.status(500)))
        async for event in events:
            if isinstance(event, Text):
                break

        assert (health_of("one").busy, health_of("two").busy) == (0, 1)
        await events.aclose()
        assert health_of("two").busy == 0

    async def test_a_budget_that_ends_between_two_tries_ends_the_answer(
        self, ask: Any, route: Routes, provider: ScriptedProvider, second: ScriptedProvider, ledger: Ledger
    ) -> None:
        route()
        ledger.refuses[1] = BudgetExceeded(retry_after=60)

        outcome = await ask(tell(provider, second, act.status(500)))

        assert isinstance(outcome.error, BudgetExceeded)
        assert ledger.rows == [(0, "one", CallStatus.FAILED, "provider_unavailable")]
        assert second.exchanges() == []
        assert health_of("two").busy == 0

    async def test_tries_count_among_the_calls_of_a_run(
        self, ask: Any, route: Routes, provider: ScriptedProvider, second: ScriptedProvider
    ) -> None:
        route(llm={"MAX_CALLS_PER_RUN": 1})

        assert isinstance((await ask(tell(provider, second, act.status(500)))).error, TooLarge)
