"""The `agent` step over real HTTP: tools are called, only those that are offered, and all of it is told and counted."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llm.errors import OutputInvalid
from llm.events import ModelFinished, ModelStarted, Step, Text
from llm.registry import tools
from llm.tools import ToolContext
from tests.llm.runs import Ran, ran
from tests.support import scripted_provider as script
from tests.support.scripted_provider import Action, ScriptedProvider, until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:langgraph")


@pytest.fixture(autouse=True)
def _alias(scripted_alias: Callable[..., None]) -> None: ...


@pytest.fixture(autouse=True)
def called() -> Iterator[list[tuple[str, Any]]]:
    """The calls that tools got."""
    calls: list[tuple[str, Any]] = []

    def weather(config: dict[str, Any]) -> Any:
        async def weather(city: str, *, context: ToolContext) -> str:
            """The weather in a city."""
            calls.append((city, context.workspace_id))
            if city == "Atlantis":
                raise RuntimeError("sk-secret")
            return f"rain in {city}"

        return weather

    def forbidden(config: dict[str, Any]) -> Any:
        def delete_everything() -> str:
            """Delete everything."""
            calls.append(("deleted", None))
            return "done"

        return delete_everything

    tools.add("weather", weather)
    tools.add("delete_everything", forbidden)
    yield calls
    tools.remove("weather")
    tools.remove("delete_everything")


def asks(name: str, arguments: Any, *, id: str = "call-1") -> list[Action]:
    """An answer that is a tool call, in two pieces."""
    text = json.dumps(arguments)
    begin = {"index": 0, "id": id, "type": "function", "function": {"name": name, "arguments": text[:3]}}
    rest = {"index": 0, "function": {"arguments": text[3:]}}
    return [script.delta(tool_calls=[begin]), script.delta(tool_calls=[rest]), script.ok("tool_calls")]


def says(*pieces: str) -> list[Action]:
    return [script.text(*pieces), script.ok()]


async def asked(provider: ScriptedProvider, *tries: list[Action], **options: Any) -> Ran:
    marker = provider.script_tries("agent", *tries)
    return await ran([{"type": "agent", "tools": ["weather"], **options}], f"{marker} Take an umbrella?")


async def test_it_calls_its_tool_and_answers_with_what_that_said(provider: ScriptedProvider, called: list[Any]) -> None:
    came = await asked(provider, asks("weather", {"city": "Bern"}), says("Yes, ", "it rains."))

    assert came.value == came.text == "Yes, it rains."
    assert called == [("Bern", came.run.configuration.workspace_id)]
    first, second = provider.exchanges("agent")
    assert [tool["function"]["name"] for tool in first.body["tools"]] == ["weather"]
    assert set(first.body["tools"][0]["function"]["parameters"]["properties"]) == {"city"}
    assert second.messages[-1]["content"] == "rain in Bern"


async def test_its_calls_and_tools_are_told_and_each_call_is_counted(provider: ScriptedProvider) -> None:
    came = await asked(provider, asks("weather", {"city": "Bern"}), says("Yes."))

    told = [(event.name, event.state) for event in came.events if isinstance(event, Step)]
    assert told == [("agent", "started"), ("tool", "started"), ("tool", "finished"), ("agent", "finished")]
    tool = next(event for event in came.events if isinstance(event, Step) and event.name == "tool")
    assert tool.detail == {"path": "steps[0]", "tool": "weather"}
    assert [event.call for event in came.events if isinstance(event, ModelStarted)] == [0, 1]
    assert [event.call for event in came.events if isinstance(event, ModelFinished)] == [0, 1]


async def test_the_answer_streams(provider: ScriptedProvider) -> None:
    came = await asked(provider, asks("weather", {"city": "Bern"}), says("a ", "b ", "c"))

    assert [event.text for event in came.events if isinstance(event, Text)] == ["a ", "b ", "c"]


async def test_what_it_says_before_a_tool_stays_a_part_of_the_answer(provider: ScriptedProvider) -> None:
    came = await asked(provider, [script.text("Let me look."), *asks("weather", {"city": "Bern"})], says("Yes."))

    assert came.text == came.value == "Let me look.\n\nYes."


async def test_a_tool_that_is_not_offered_is_not_called(
    provider: ScriptedProvider, called: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "llm.agents"):
        came = await asked(provider, asks("delete_everything", {}), says("never asked"))

    assert called == []
    assert came.error is None
    assert "action=tool_calls_ignored" in caplog.text


async def test_a_tool_that_fails_is_told_to_the_model_in_our_words(provider: ScriptedProvider) -> None:
    came = await asked(provider, asks("weather", {"city": "Atlantis"}), says("I can't tell."))

    assert came.text == "I can't tell."
    assert provider.exchanges("agent")[1].messages[-1]["content"] == "The tool 'weather' failed."
    assert ("tool", "failed", "steps[0]") in came.steps


async def test_arguments_that_do_not_fit_are_told_to_the_model(provider: ScriptedProvider, called: list[Any]) -> None:
    came = await asked(provider, asks("weather", {"town": "Bern"}), says("Sorry."))

    assert (called, came.text) == ([], "Sorry.")


async def test_an_agent_that_comes_to_no_end_is_ended(provider: ScriptedProvider) -> None:
    came = await asked(provider, asks("weather", {"city": "Bern"}), max_rounds=3)

    assert isinstance(came.error, OutputInvalid)
    assert str(came.error) == "The agent came to no answer within 3 rounds."
    assert len(provider.exchanges("agent")) == 3


async def test_a_failing_provider_is_the_steps_failure(provider: ScriptedProvider) -> None:
    came = await asked(provider, [script.status(400)])

    assert came.error is not None
    assert came.error.code == "provider_refused"  # type: ignore[attr-defined]


async def test_stopping_closes_its_connection(provider: ScriptedProvider) -> None:
    running = asyncio.create_task(asked(provider, [script.text("a"), script.hang()]))
    exchange = await asyncio.to_thread(provider.wait_for, "agent")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert await until(exchange.disconnected, 2)


async def test_before_another_step_that_answers_it_is_not_shown(provider: ScriptedProvider) -> None:
    marker = provider.script_tries("agent", says("draft"))
    steps = [
        {"type": "agent", "tools": ["weather"], "system": "Be brief.", "output": "draft"},
        {"type": "prompt", "template": "again: {draft}"},
        {"type": "llm"},
    ]

    came = await ran(steps, marker)

    assert came.text == "echo: again: draft"
    assert provider.exchanges("agent")[0].messages[0] == {"role": "system", "content": "Be brief."}
