"""What goes along with a call through a route: options and bounds, callback handlers, tools."""

from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.tools import tool

from llm import errors
from llm.events import ModelFinished, ToolCalls
from llm.models import CallStatus
from llm.registry import callback_handlers
from tests.llm.conftest import Configure
from tests.llm.router.conftest import Ledger, Routes, tell
from tests.support import scripted_provider as act
from tests.support.scripted_provider import Action, ScriptedProvider


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
