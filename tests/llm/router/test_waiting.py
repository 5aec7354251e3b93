"""Calls that wait for a place at a model, and calls that are stopped: places come back, and connections are closed."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import pytest

from kernel.errors import Busy
from llm import errors
from llm.errors import BudgetExceeded
from llm.events import Event, Step, Text
from llm.models import CallStatus
from tests.llm.clock import Clock
from tests.llm.router.conftest import Ledger, Routes, Stream, health_of, tell
from tests.support import scripted_provider as act
from tests.support.scripted_provider import Gate, ScriptedProvider, until


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
