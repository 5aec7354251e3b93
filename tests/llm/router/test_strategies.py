"""Which model of a route is asked: in turns, by shares, by what they have to do."""

from collections import Counter
from typing import Any

from llm.events import Text
from tests.llm.router.conftest import Ledger, Routes, Stream, tell
from tests.support import scripted_provider as act
from tests.support.scripted_provider import Gate, ScriptedProvider


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
