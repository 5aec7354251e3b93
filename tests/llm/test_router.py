"""Routes over providers that fail: who waits for the answer notices nothing, and each request is accounted for."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

from kernel.errors import Busy, TooLarge
from llm import aliases, errors, health
from llm.configuration import Configuration
from llm.errors import BudgetExceeded
from llm.events import Event, ModelFailed, ModelFinished, ModelStarted, Step, Text, ToolCalls
from llm.health import Health
from llm.journal import Call, Closed
from llm.models import CallStatus
from llm.registry import callback_handlers
from llm.retries import RetryBudget
from llm.router import stream_route
from llm.state import RunContext
from tests.llm.clock import Clock
from tests.llm.conftest import NOBODY, Configure, Outcome
from tests.support import scripted_provider as act
from tests.support.scripted_provider import Action, Gate, ScriptedProvider, until
from tests.support.server import free_port

BOUNDS = {"FIRST_TOKEN_TIMEOUT": 5.0, "BETWEEN_TOKENS_TIMEOUT": 5.0, "TOTAL_TIMEOUT": 20.0, "MAX_RETRIES": 0}


@pytest.fixture(scope="module")
def _another() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as server:
        yield server


@pytest.fixture
def second(_another: ScriptedProvider) -> Iterator[ScriptedProvider]:
    yield _another
    _another.forget()


Routes = Callable[..., None]


def model(base_url: str, **keys: Any) -> dict[str, Any]:
    options = {"base_url": base_url, "api_key": "sk-test"}
    return {"PROVIDER": "openai", "MODEL": "scripted", "OPTIONS": options, **BOUNDS, **keys}


@pytest.fixture
def route(provider: ScriptedProvider, second: ScriptedProvider, configure: Configure) -> Routes:
    """Make the default a route over `one` and `two`; keys of the models and of the route may be given."""

    def set_route(
        *, one: dict[str, Any] | None = None, two: dict[str, Any] | None = None, llm: Any = None, **keys: Any
    ) -> None:
        models = {"one": model(provider.base_url) | (one or {}), "two": model(second.base_url) | (two or {})}
        over = {"MODELS": ["one", "two"], "STRATEGY": "fallback", **keys}
        configure(**models, **({"DEFAULT_MODEL": "both", "ROUTES": {"both": over}} | (llm or {})))

    set_route()
    return set_route


@dataclass
class Ledger:
    """A journal that the test reads."""

    opened: list[Call] = field(default_factory=list)
    closed: list[Closed] = field(default_factory=list)
    #: Raised instead of opening the call of this number.
    refuses: dict[int, Exception] = field(default_factory=dict)
    #: What a budget holds back for an answer.
    held: int | None = None

    def output_bound(self, own: int | None) -> int | None:
        return own or self.held

    async def open(self, call: Call) -> None:
        if call.number in self.refuses:
            raise self.refuses[call.number]
        self.opened.append(call)

    def close(self, closed: Closed) -> None:
        self.closed.append(closed)

    @property
    def rows(self) -> list[tuple[int, str, CallStatus | None, str]]:
        assert [one.call for one in self.closed] == self.opened
        return [(one.call.number, one.call.alias, one.status, one.error_category) for one in self.closed]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


Stream = Callable[..., AsyncGenerator[Event, None]]


@pytest.fixture
def stream(ledger: Ledger) -> Stream:
    def start(content: str, name: str = "", *, workspace: UUID = NOBODY, **more: Any) -> AsyncGenerator[Event, None]:
        run = RunContext(Configuration(workspace_id=workspace, generation=0), ledger)
        return stream_route(name, [HumanMessage(content)], run=run, **more)

    return start


@pytest.fixture
def ask(stream: Stream) -> Callable[..., Any]:
    async def to_the_end(content: str, name: str = "", **more: Any) -> Outcome:
        outcome = Outcome()
        try:
            async with aclosing(stream(content, name, **more)) as events:
                async for event in events:
                    outcome.events.append(event)
        except Exception as error:  # noqa: BLE001  the outcome is what is tested
            outcome.error = error
        return outcome

    return to_the_end


def health_of(alias: str) -> Health:
    return health.of(aliases.resolve(alias))


def tell(provider: ScriptedProvider, second: ScriptedProvider, *script: Action) -> str:
    """A question that the first answers with `script`, the second well."""
    second.script("q", act.text("from ", "two"), act.ok())
    return provider.script("q", *script)


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


class TestStrategies:
    async def chosen(self, ask: Any, ledger: Ledger, count: int) -> list[str]:
        for _ in range(count):
            await ask("hello")
        return [one.call.alias for one in ledger.closed]

    async def test_fallback_asks_the_first_as_long_as_it_answers(self, ask: Any, route: Routes, ledger: Ledger) -> None:
        route()

        assert await self.chosen(ask, ledger, 4) == ["one"] * 4

    async def test_round_robin_takes_turns(self, ask: Any, route: Routes, ledger: Ledger) -> None:
        route(STRATEGY="round_robin")

        assert await self.chosen(ask, ledger, 4) == ["one", "two", "one", "two"]

    async def test_weighted_keeps_to_its_shares_and_spreads_them(self, ask: Any, route: Routes, ledger: Ledger) -> None:
        route(STRATEGY="weighted", WEIGHTS=[3, 1])

        chosen = await self.chosen(ask, ledger, 40)

        assert Counter(chosen) == {"one": 30, "two": 10}
        assert all(Counter(chosen[start : start + 4])["two"] == 1 for start in range(0, 40, 4))

    async def test_least_busy_asks_who_has_the_fewest_calls(
        self, stream: Stream, ask: Any, route: Routes, provider: ScriptedProvider, ledger: Ledger
    ) -> None:
        route(STRATEGY="least_busy")
        gate = Gate()
        held = stream(provider.script("held", act.text("one "), act.wait(gate)))
        async for event in held:
            if isinstance(event, Text):
                break

        assert await self.chosen(ask, ledger, 3) == ["two"] * 3
        await held.aclose()

    async def test_equally_busy_models_take_turns(self, ask: Any, route: Routes, ledger: Ledger) -> None:
        route(STRATEGY="least_busy")

        assert Counter(await self.chosen(ask, ledger, 6)) == {"one": 3, "two": 3}

    async def test_a_model_that_is_left_alone_has_no_share(
        self, ask: Any, route: Routes, ledger: Ledger, provider: ScriptedProvider, second: ScriptedProvider
    ) -> None:
        route(STRATEGY="round_robin", llm={"BREAKER_FAILURES": 1})
        marker = tell(provider, second, act.status(500))
        await ask(marker)

        assert await self.chosen(ask, ledger, 4) == ["one", *["two"] * 5]


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


class TestTheQueue:
    @pytest.fixture(autouse=True)
    def _one_place(self, route: Routes) -> None:
        route(one={"MAX_CONCURRENT": 1, "QUEUE_TIMEOUT": 20.0}, MODELS=["one"])

    async def hold(self, stream: Stream, provider: ScriptedProvider, gate: Gate) -> AsyncGenerator[Event, None]:
        """A call that has the place."""
        held = stream(provider.script("held", act.text("held "), act.wait(gate), act.ok()))
        async for event in held:
            if isinstance(event, Text):
                break
        return held

    async def test_a_call_waits_for_its_place_and_says_where_it_stands(
        self, stream: Stream, provider: ScriptedProvider
    ) -> None:
        held = await self.hold(stream, provider, Gate())
        events = stream("hello")

        assert await anext(events) == Step("queue", "queued", {"place": 1})
        assert len(provider.exchanges()) == 1
        await held.aclose()
        rest = [event async for event in events]
        assert rest[0] == Step("queue", "finished")
        assert "".join(event.text for event in rest if isinstance(event, Text)) == "echo: hello"

    async def test_a_flood_of_one_workspace_does_not_hold_another_up(
        self, stream: Stream, provider: ScriptedProvider
    ) -> None:
        held = await self.hold(stream, provider, Gate())

        async def read(number: int, workspace: UUID) -> int:
            async for _ in stream(f"call {number}", workspace=workspace):
                pass
            return number

        flood = [asyncio.create_task(read(number, UUID(int=1))) for number in range(10)]
        await asyncio.sleep(0)
        other = asyncio.create_task(read(99, UUID(int=2)))
        while health_of("one").places.waiting < 11:
            await asyncio.sleep(0)
        await held.aclose()
        await asyncio.gather(*flood, other)

        asked = [str(exchange.messages[-1]["content"]) for exchange in provider.exchanges("")]
        assert asked.index("call 99") == 1
        assert len(asked) == 11

    async def test_a_full_queue_is_busy_and_the_next_model_of_the_route_is_asked(
        self, ask: Any, stream: Stream, route: Routes, provider: ScriptedProvider
    ) -> None:
        limits = {"MAX_CONCURRENT": 1, "QUEUE_TIMEOUT": 0.05}
        route(one=limits)
        held = await self.hold(stream, provider, Gate())

        outcome = await ask("hello")
        alone = await ask("hello", "one")

        assert (outcome.error, outcome.started.alias) == (None, "two")
        assert isinstance(alone.error, Busy)
        assert alone.error.retry_after
        await held.aclose()

    async def test_a_model_whose_breaker_opens_meanwhile_is_not_asked_when_the_place_is_there(
        self, ask: Any, stream: Stream, route: Routes, provider: ScriptedProvider
    ) -> None:
        route(one={"MAX_CONCURRENT": 1}, llm={"BREAKER_FAILURES": 1})
        held = await self.hold(stream, provider, Gate())

        asking = asyncio.create_task(ask("hello"))
        while not health_of("one").places.waiting:
            await asyncio.sleep(0)
        others = health_of("one").breaker.enter()
        assert others is not None
        others.failed("provider_unavailable")
        await held.aclose()

        assert (await asking).started.alias == "two"
        assert health_of("one").busy == 0

    async def test_a_stop_while_queued_leaves_no_trace(
        self, stream: Stream, ask: Any, provider: ScriptedProvider, ledger: Ledger
    ) -> None:
        held = await self.hold(stream, provider, Gate())
        heard: list[Event] = []

        async def read() -> None:
            async for event in stream("waiting"):
                heard.append(event)  # noqa: PERF401  each at once, not all at the end

        task = asyncio.create_task(read())
        while not heard:
            await asyncio.sleep(0)
        begun = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert time.monotonic() - begun < 1
        assert health_of("one").places.waiting == 0
        assert [call.messages[0]["content"] for call in ledger.opened] == ["[[held]]"]
        await held.aclose()
        assert (await ask("and now?")).text == "echo: and now?"

    async def test_every_ending_gives_its_place_back(
        self, ask: Any, stream: Stream, provider: ScriptedProvider, ledger: Ledger
    ) -> None:
        for fault in (act.status(500), act.cut(), act.status(400), act.raw(b"data: {\n\n")):
            await ask(provider.script("fault", fault))
            assert health_of("one").busy == 0
        events = stream(provider.script("stop", act.text("one "), act.hang()))
        await anext(events)
        await events.aclose()
        ledger.refuses[0] = BudgetExceeded()
        await ask("too dear")

        assert health_of("one").busy == 0


class TestStopping:
    async def test_while_the_second_model_speaks_closes_its_connection_and_leaves_the_row_open_ended(
        self, stream: Stream, route: Routes, provider: ScriptedProvider, second: ScriptedProvider, ledger: Ledger
    ) -> None:
        route()
        marker = tell(provider, second, act.status(500))
        second.script("q", act.text("one "), act.hang())
        events = stream(marker)
        async for event in events:
            if isinstance(event, Text):
                break

        begun = time.monotonic()
        await events.aclose()

        exchange = second.wait_for("q")
        assert await until(exchange.disconnected, 1)
        assert (exchange.disconnected_at or 0) - begun < 1
        assert ledger.rows == [(0, "one", CallStatus.FAILED, "provider_unavailable"), (1, "two", None, "")]

    async def test_during_the_pause_before_a_retry_is_heard_at_once(
        self, ask: Any, route: Routes, provider: ScriptedProvider, ledger: Ledger
    ) -> None:
        route(one={"MAX_RETRIES": 1, "FIRST_TOKEN_TIMEOUT": 30.0}, MODELS=["one"])
        marker = provider.script("q", act.status(429, headers={"Retry-After": "10"}))
        task = asyncio.create_task(ask(marker))
        while not ledger.closed:
            await asyncio.sleep(0.005)

        begun = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert time.monotonic() - begun < 1
        assert ledger.rows == [(0, "one", CallStatus.FAILED, "provider_rate_limited")]
        assert health_of("one").busy == 0
        assert len(provider.exchanges("q")) == 1

    async def test_a_stopped_probe_frees_the_way_for_the_next(
        self, stream: Stream, ask: Any, route: Routes, provider: ScriptedProvider
    ) -> None:
        route(MODELS=["one"], llm={"BREAKER_FAILURES": 1})
        clock = Clock()
        health_of("one").breaker.clock = clock
        await ask(provider.script("q", act.status(500)))
        clock.pass_(31)
        events = stream(provider.script("probe", act.begin(), act.hang()))
        await anext(events)
        assert isinstance((await ask("hello")).error, errors.ProviderUnavailable)
        await events.aclose()

        assert (await ask("hello")).text == "echo: hello"


class TestOptions:
    async def test_a_steps_options_go_to_the_provider_and_into_the_log(
        self, ask: Any, route: Routes, provider: ScriptedProvider, ledger: Ledger
    ) -> None:
        route(one={"MAX_OUTPUT_TOKENS": 100})

        await ask("hello", options={"temperature": 0.25, "max_tokens": 20, "top_p": None})

        body = provider.exchanges("")[0].body
        assert body["temperature"] == 0.25
        assert body.get("max_completion_tokens", body.get("max_tokens")) == 20
        assert "top_p" not in body
        assert ledger.opened[0].parameters == {"temperature": 0.25, "max_tokens": 20}
        assert ledger.opened[0].max_output_tokens == 20

    @pytest.mark.parametrize(
        ("bound", "option", "wanted", "sent"),
        [
            (100, None, None, 100),
            (100, None, 5000, 100),
            (100, 30, None, 30),
            (100, 300, None, 100),
            (None, 30, 40, 40),
        ],
    )
    async def test_the_operators_bound_on_an_answer_holds(
        self, ask: Any, route: Routes, provider: ScriptedProvider, ledger: Ledger,
        bound: int | None, option: int | None, wanted: int | None, sent: int,
    ) -> None:  # fmt: skip
        options = {"base_url": provider.base_url, "api_key": "sk-test", **({"max_tokens": option} if option else {})}
        route(one={"MAX_OUTPUT_TOKENS": bound, "OPTIONS": options})

        await ask("hello", options={"max_tokens": wanted})

        body = provider.exchanges("")[0].body
        assert body.get("max_completion_tokens", body.get("max_tokens")) == sent
        assert ledger.opened[0].max_output_tokens == sent

    async def test_the_fake_keeps_to_it_too(self, ask: Any, configure: Configure) -> None:
        configure(default={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": "1 2 3 4"}, "MAX_OUTPUT_TOKENS": 3})

        outcome = await ask("hello")

        assert (outcome.text, outcome.finished.finish_reason) == ("1 2 3 ", "length")
        assert (await ask("hello", options={"max_tokens": 2})).text == "1 2 "

    async def test_without_any_nothing_is_sent(self, ask: Any, route: Routes, provider: ScriptedProvider) -> None:
        route()
        await ask("hello")

        assert not {"temperature", "max_tokens", "max_completion_tokens"} & set(provider.exchanges("")[0].body)

    async def test_what_a_budget_holds_back_bounds_an_answer_that_nothing_else_does(
        self, ask: Any, route: Routes, provider: ScriptedProvider, ledger: Ledger
    ) -> None:
        ledger.held = 50
        route()
        await ask("hello")

        body = provider.exchanges("")[0].body
        assert body.get("max_completion_tokens", body.get("max_tokens")) == ledger.opened[0].max_output_tokens == 50


async def test_a_registered_callback_handler_watches_every_call(
    ask: Any, route: Routes, provider: ScriptedProvider, second: ScriptedProvider
) -> None:
    seen: list[str] = []

    class Watcher(AsyncCallbackHandler):
        async def on_llm_new_token(self, token: str, **_: Any) -> None:
            seen.append(token)

        async def on_llm_error(self, error: BaseException, **_: Any) -> None:
            seen.append("failed")

    callback_handlers.add("watcher", lambda config: Watcher())
    try:
        route(llm={"CALLBACKS": ["watcher"]})
        await ask(tell(provider, second, act.status(500)))
    finally:
        callback_handlers.remove("watcher")

    assert [token for token in seen if token] == ["failed", "from ", "two"]


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sun in {city}"


def asks_for(name: str, *arguments: str) -> list[Action]:
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": name, "arguments": ""}}
    parts = [{"index": 0, "function": {"arguments": part}} for part in arguments]
    return [act.delta(tool_calls=[call]) for call in (first, *parts)] + [act.ok("tool_calls")]


class TestTools:
    async def test_a_models_wish_for_a_tool_comes_before_its_end(
        self, ask: Any, route: Routes, provider: ScriptedProvider, ledger: Ledger
    ) -> None:
        route()
        marker = provider.script("tool", *asks_for("weather", '{"ci', 'ty": "Bonn"}'))

        outcome = await ask(marker, tools=[weather])

        calls = [event for event in outcome.events if isinstance(event, ToolCalls)]
        assert calls == [ToolCalls(({"id": "c1", "name": "weather", "args": {"city": "Bonn"}},), 0)]
        assert isinstance(outcome.events[-1], ModelFinished)
        assert outcome.events[-2] == calls[0]
        assert provider.exchanges("tool")[0].body["tools"][0]["function"]["name"] == "weather"
        assert ledger.rows == [(0, "one", CallStatus.OK, "")]
        # What describes the tools is sent, too, so budgets must hold it back.
        assert ledger.opened[0].tool_bytes > len(str(weather.description))

    async def test_a_model_may_answer_without_them(self, ask: Any, route: Routes, provider: ScriptedProvider) -> None:
        route()
        outcome = await ask("hello", tools=[weather])

        assert outcome.text == "echo: hello"
        assert not any(isinstance(event, ToolCalls) for event in outcome.events)

    async def test_arguments_that_are_no_json_are_a_bad_response(
        self, ask: Any, route: Routes, provider: ScriptedProvider
    ) -> None:
        route(MODELS=["one"])
        marker = provider.script("tool", *asks_for("weather", "[not json"))

        assert isinstance((await ask(marker, tools=[weather])).error, errors.ProviderBadResponse)
