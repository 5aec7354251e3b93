"""What a provider is sent fits its window, and people are told what was left out."""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import BaseMessage

from llm import answer_cache, calls
from llm.answer_cache import CacheOptions
from llm.errors import ContextExceeded, ProviderContextExceeded, ProviderUnavailable
from llm.events import Event, ModelFailed, ModelFinished, ModelStarted, Sources, Step
from llm.registry import tools
from llm.state import RunContext, WorkflowInput, WorkflowState
from llm.steps.llm import LlmStep
from llm.steps.prompt import PromptStep
from llm.tokens import PER_MESSAGE, PER_REQUEST
from tests.conftest import Person
from tests.llm.conftest import Configure
from tests.llm.runs import ran
from tests.llm.test_answer_cache import state_for
from tests.llm.window.conftest import hits, prompted, spoken, window_for, words
from tests.support import scripted_provider as script
from tests.support.scripted_provider import Action, Reply, ScriptedProvider


def count_of(body: dict[str, Any]) -> int:
    """The words of a request, with what our counter adds for its frame."""
    return PER_REQUEST + sum(PER_MESSAGE + len(str(one.get("content") or "").split()) for one in body["messages"])


def limited(most: int, *, body: Callable[[int], Any] | None = None) -> Action:
    """A provider that refuses what is longer than `most`, as OpenAI does."""

    async def act(reply: Reply) -> None:
        asked = count_of(reply.exchange.body)
        if asked > most:
            error = {
                "message": "too long sk-secret",
                "type": "invalid_request_error",
                "code": "context_length_exceeded",
            }
            await script.status(400, body={"error": error} if body is None else body(asked))(reply)
            return
        for action in (script.text("fine"), script.ok()):
            await action(reply)

    return act


async def run_with(
    provider: ScriptedProvider,
    marker: str,
    *,
    history: Sequence[BaseMessage] = (),
    passages: Sequence[dict[str, Any]] = (),
    alias: str = "",
    **options: Any,
) -> tuple[list[Event], WorkflowState, Exception | None]:
    """A prompt and an `llm` step over a conversation and passages."""
    state = WorkflowState.begin(WorkflowInput(uuid4(), None, None, f"why? {marker}"), RunContext.unlogged(uuid4()))
    state.history, state.passages = list(history), list(passages)
    events: list[Event] = []
    try:
        for step in (PromptStep(type="prompt"), LlmStep(type="llm", model=alias, **options)):
            async with aclosing(step.run(state)) as stream:
                events += [event async for event in stream]
    except Exception as error:  # noqa: BLE001  the outcome is what is tested
        return events, state, error
    return events, state, None


def told(events: Sequence[Event]) -> list[tuple[str, dict[str, Any]]]:
    return [(event.state, event.detail) for event in events if isinstance(event, Step) and event.name == "window"]


def sources(events: Sequence[Event]) -> list[list[int]]:
    return [[hit["n"] for hit in event.hits] for event in events if isinstance(event, Sources)]


class TestAConversation:
    async def test_beyond_the_window_is_shortened_and_people_are_told(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(**window_for(200))
        marker = provider.script("long", limited(200))
        events, state, error = await run_with(provider, marker, history=spoken(20), passages=hits(2))
        assert error is None
        (exchange,) = provider.exchanges("long")
        assert count_of(exchange.body) <= 200
        assert [one["role"] for one in exchange.messages][:3] == ["system", "user", "assistant"]
        assert exchange.messages[-2]["content"].startswith("tell19")
        ((_, detail),) = told(events)
        assert detail["dropped_messages"] == 42 - len(exchange.messages)
        assert (detail["dropped_passages"], detail["limit"]) == (0, 200)
        assert detail["tokens"] == count_of(exchange.body)
        assert sources(events) == []
        assert state.text == "fine"
        (entry,) = state.run.trace
        assert (entry["type"], entry["dropped_messages"]) == ("window", detail["dropped_messages"])

    async def test_within_the_window_says_nothing(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(**window_for(2000))
        marker = provider.script("short", limited(2000))
        events, state, _ = await run_with(provider, marker, history=spoken(20))
        assert told(events) == []
        assert len(provider.exchanges("short")[0].messages) == 42
        assert state.run.trace == []

    async def test_sources_are_those_that_are_in_the_prompt(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(**window_for(120))
        marker = provider.script("many", limited(120))
        events, _, error = await run_with(provider, marker, passages=hits(9))
        assert error is None
        (shown,) = sources(events)
        sent = provider.exchanges("many")[0].messages[-1]["content"]
        assert 0 < len(shown) < 9
        assert all((f"[{n}]" in sent) == (n in shown) for n in range(1, 10))

    async def test_a_call_that_nobody_sees_changes_no_sources(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(**window_for(120))
        marker = provider.script("aside", limited(120))
        events, _, error = await run_with(provider, marker, passages=hits(9), show=False)
        assert error is None
        assert sources(events) == []
        assert len(told(events)) == 1

    async def test_a_question_that_is_too_long_reaches_no_provider(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(**window_for(100))
        marker = provider.script("huge", limited(100))
        came = await ran([{"type": "llm"}], f"{marker} {words(300)}")
        assert isinstance(came.error, ContextExceeded)
        assert provider.exchanges("huge") == []
        assert not any(isinstance(event, ModelStarted) for event in came.events)

    async def test_is_refused_where_the_alias_says_so(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(**window_for(200), OVERFLOW="refuse")
        marker = provider.script("strict", limited(200))
        _, _, error = await run_with(provider, marker, history=spoken(20))
        assert isinstance(error, ContextExceeded)
        assert provider.exchanges("strict") == []

    async def test_what_a_step_asks_for_is_kept_free_for_the_answer(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(CONTEXT_TOKENS=1016, TOKENIZER="words")
        marker = provider.script("answer", script.text("fine"), script.ok())
        for asked in (100, 700):
            await run_with(provider, marker, history=spoken(60), max_tokens=asked)
        free, tight = (count_of(exchange.body) for exchange in provider.exchanges("answer"))
        assert 800 < free <= 900
        assert 200 < tight <= 300

    async def test_a_schema_takes_its_room(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(**window_for(300))
        marker = provider.script("schema", script.text("{}"), script.ok())
        schema = {"type": "object", "properties": {"a": {"type": "string", "description": words(100)}}}
        events, _, _ = await run_with(provider, marker, history=spoken(20), json_schema=schema)
        assert count_of(provider.exchanges("schema")[0].body) <= 200
        assert told(events)[0][1]["limit"] < 200

    async def test_an_answer_that_is_mended_goes_through_the_same_gate(self, configure: Configure) -> None:
        steps = [{"type": "llm"}, {"type": "parser", "parser": "json", "repair": 1}]

        def answering(size: int) -> None:
            options = {"answers": [words(size), "{}"]}
            configure(default={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": options, **window_for(240)})

        answering(60)
        came = await ran(steps, words(60))
        assert came.value == {}
        assert len([event for event in came.events if isinstance(event, ModelStarted)]) == 2
        answering(200)
        came = await ran(steps, words(60))
        assert isinstance(came.error, ContextExceeded)
        assert len([event for event in came.events if isinstance(event, ModelStarted)]) == 1


OVERFLOWS: dict[str, Callable[[int], Any] | None] = {
    "openai": None,
    "llama.cpp": lambda asked: {
        "error": {
            "code": 400,
            "message": "the request exceeds the available context size",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": asked,
            "n_ctx": 300,
        }
    },
    "vllm": lambda asked: {
        "error": {
            "message": f"This model's maximum context length is 300 tokens. However, you requested {asked} tokens.",
            "type": "BadRequestError",
            "code": 400,
        }
    },
}


class TestAProviderThatRefuses:
    @pytest.mark.parametrize("kind", OVERFLOWS)
    async def test_is_asked_once_more_with_less(
        self, kind: str, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(TOKENIZER="words", MAX_OUTPUT_TOKENS=20)
        marker = provider.script("refuses", limited(320, body=OVERFLOWS[kind]))
        events, state, error = await run_with(provider, marker, history=spoken(10, size=12))
        assert error is None
        assert state.text == "fine"
        first, second = provider.exchanges("refuses")
        assert count_of(first.body) > 320 >= count_of(second.body)
        assert len(told(events)) == 1
        failed = [event for event in events if isinstance(event, ModelFailed)]
        assert [event.code for event in failed] == ["context_exceeded"]
        assert len([event for event in events if isinstance(event, ModelStarted)]) == 2

    async def test_again_is_no_longer_asked_and_its_breaker_stays_closed(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(TOKENIZER="words", llm={"BREAKER_FAILURES": 1})
        marker = provider.script("never", limited(1))
        for _ in range(2):
            _, _, error = await run_with(provider, marker, history=spoken(10))
            assert isinstance(error, ProviderContextExceeded)
            assert error.code == "context_exceeded"
            assert "secret" not in error.message
        assert len(provider.exchanges("never")) == 4

    async def test_is_not_asked_again_where_nothing_can_be_left_out(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(TOKENIZER="words")
        marker = provider.script("alone", limited(1))
        _, _, error = await run_with(provider, marker)
        assert isinstance(error, ProviderContextExceeded)
        assert len(provider.exchanges("alone")) == 1

    async def test_some_other_400_is_not_taken_for_it(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(TOKENIZER="words")
        marker = provider.script("other", script.status(400))
        _, _, error = await run_with(provider, marker, history=spoken(10))
        assert getattr(error, "code", "") == "provider_refused"
        assert len(provider.exchanges("other")) == 1


class TestARoute:
    @pytest.fixture
    def route(self, provider: ScriptedProvider, configure: Configure) -> Callable[..., None]:
        def make(**members: dict[str, Any]) -> None:
            base = {"PROVIDER": "openai", "MAX_RETRIES": 0, "OPTIONS": {"base_url": provider.base_url, "api_key": "k"}}
            models = {name: {**base, "MODEL": name, **keys} for name, keys in members.items()}
            configure(**models, ROUTES={"route": {"MODELS": list(members)}}, DEFAULT_MODEL="route")

        return make

    @staticmethod
    def by_model(**actions: Sequence[Action]) -> Action:
        async def act(reply: Reply) -> None:
            for action in actions[reply.exchange.body["model"]]:
                await action(reply)

        return act

    async def test_gives_its_larger_model_the_whole_prompt(
        self, provider: ScriptedProvider, route: Callable[..., None]
    ) -> None:
        route(small=window_for(150), large=window_for(2000))
        marker = provider.script(
            "route", self.by_model(small=[script.status(500)], large=[script.text("fine"), script.ok()])
        )
        events, _, error = await run_with(provider, marker, history=spoken(10), passages=hits(9))
        assert error is None
        small, large = provider.exchanges("route")
        assert count_of(small.body) <= 150
        assert len(large.messages) == 22
        assert len(sources(events)) == 2
        assert sources(events)[-1] == list(range(1, 10))
        assert [detail["dropped_messages"] for _, detail in told(events)] == [20, 0]

    async def test_passes_over_a_model_that_can_not_hold_the_question(
        self, provider: ScriptedProvider, route: Callable[..., None]
    ) -> None:
        route(small=window_for(100), large=window_for(2000))
        marker = provider.script("over", script.text("fine"), script.ok())
        came = await ran([{"type": "llm"}], f"{marker} {words(300)}")
        assert came.error is None
        assert [exchange.body["model"] for exchange in provider.exchanges("over")] == ["large"]
        ((state, detail),) = told(came.events)
        assert (state, detail["alias"], detail["limit"]) == ("failed", "small", 100)

    async def test_says_what_failed_where_one_was_too_small_and_the_other_is_down(
        self, provider: ScriptedProvider, route: Callable[..., None]
    ) -> None:
        route(small=window_for(100), large=window_for(2000))
        marker = provider.script("down", script.status(503))
        came = await ran([{"type": "llm"}], f"{marker} {words(300)}")
        assert isinstance(came.error, ProviderUnavailable)

    async def test_that_is_too_small_as_a_whole_names_the_most_room(
        self, provider: ScriptedProvider, route: Callable[..., None]
    ) -> None:
        route(small=window_for(100), large=window_for(200))
        came = await ran([{"type": "llm"}], words(300))
        assert isinstance(came.error, ContextExceeded)
        assert came.error.limit == 200

    async def test_turns_to_the_next_model_when_one_refuses_twice(
        self, provider: ScriptedProvider, route: Callable[..., None]
    ) -> None:
        route(small={"TOKENIZER": "words"}, large={"TOKENIZER": "words"})
        marker = provider.script("twice", self.by_model(small=[limited(1)], large=[limited(2000)]))
        _, state, error = await run_with(provider, marker, history=spoken(10))
        assert error is None
        assert state.text == "fine"
        assert [exchange.body["model"] for exchange in provider.exchanges("twice")] == ["small", "small", "large"]
        assert len(provider.exchanges("twice")[-1].messages) == 22


@pytest.mark.filterwarnings("ignore::DeprecationWarning:langgraph")
class TestAnAgent:
    @pytest.fixture(autouse=True)
    def _tool(self) -> Any:
        def lookup(config: dict[str, Any]) -> Any:
            def lookup(page: int) -> str:
                """A page."""
                return f"page{page} {words(60)}"

            return lookup

        tools.add("lookup", lookup)
        yield
        tools.remove("lookup")

    async def test_forgets_its_oldest_tool_results_and_keeps_calls_and_results_together(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(**window_for(330))
        asks = [[script.tool("lookup", page=page), script.ok("tool_calls")] for page in range(5)]
        marker = provider.script_tries("agent", *asks, [script.text("fine"), script.ok()])
        came = await ran([{"type": "agent", "tools": ["lookup"], "system": "Look it up."}], f"{marker} where?")
        assert came.error is None, came.error
        assert came.text == "fine"
        last = provider.exchanges("agent")[-1]
        roles = [one["role"] for one in last.messages]
        assert roles[:2] == ["system", "user"]
        assert roles[2:] == ["assistant", "tool"] * (len(roles[2:]) // 2)
        assert len(roles) < 2 + 2 * 5
        assert last.messages[-1]["content"].startswith("page4")
        assert all(count_of(exchange.body) <= 330 for exchange in provider.exchanges("agent"))
        assert told(came.events)

    async def test_whose_last_result_is_too_long_ends_with_the_reason(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(**window_for(150))
        marker = provider.script_tries("big", [script.tool("lookup", page=1), script.ok("tool_calls")])
        came = await ran([{"type": "agent", "tools": ["lookup"]}], f"{marker} {words(30)}")
        assert isinstance(came.error, ContextExceeded)
        assert len(provider.exchanges("big")) == 1


@pytest.mark.usefixtures("live_database")
class TestKeptAnswers:
    async def test_are_those_to_what_was_really_asked(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None], person: Person
    ) -> None:
        scripted_alias(**window_for(200))
        marker = provider.script("kept", script.text("fine"), script.ok())

        async def ask(turns: int, found: int = 0) -> list[Event]:
            state = state_for(person, f"why? {marker}", cache=CacheOptions().model_dump())
            draft = prompted(spoken(40)[-2 * turns :], hits(found), state.question)
            async with aclosing(calls.stream_answer(state, "", draft)) as stream:
                events = [event async for event in stream]
            await answer_cache.keep(state.run)
            return events

        def cached(events: list[Event]) -> bool:
            return any(isinstance(event, ModelFinished) and event.cached for event in events)

        assert not cached(await ask(30))
        # Another conversation of which the same is sent: the same answer, and the same word of what was left out.
        again = await ask(35)
        assert cached(again)
        assert told(again)[0][1]["dropped_messages"] > 60
        assert not cached(await ask(1))
        assert len(provider.exchanges("kept")) == 2

    async def test_do_not_come_from_a_prompt_that_was_shortened_after_a_refusal(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None], person: Person
    ) -> None:
        scripted_alias(TOKENIZER="words")
        marker = provider.script("cut", limited(450))
        for _ in range(2):
            state = state_for(person, f"why? {marker}", cache=CacheOptions().model_dump())
            async with aclosing(calls.stream_answer(state, "", prompted(spoken(15), (), state.question))) as stream:
                events = [event async for event in stream]
            await answer_cache.keep(state.run)
            assert not any(isinstance(event, ModelFinished) and event.cached for event in events)
        assert len(provider.exchanges("cut")) == 4
