"""What every provider's adapter promises, whatever its SDK does: through the real client libraries, over real HTTP."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool as make_tool
from pytest_django import Settings

from llm import aliases, errors, health
from llm.events import ModelFinished, Text, ToolCalls
from llm.router import stream_route
from llm.state import RunContext
from tests.llm.conftest import NOBODY, Outcome
from tests.support import scripted_provider as script
from tests.support.scripted_google import Google
from tests.support.scripted_provider import Exchange, Gate, ScriptedProvider, until

#: What the SDKs say at import or when they are built is theirs.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

KEY = "hf_key-of-the-alias"
SHORT = {"FIRST_TOKEN_TIMEOUT": 5.0, "BETWEEN_TOKENS_TIMEOUT": 5.0, "TOTAL_TIMEOUT": 20.0, "MAX_RETRIES": 0}


@pytest.fixture(scope="session")
def google() -> Iterator[ScriptedProvider]:
    with ScriptedProvider(dialect=Google()) as server:
        yield server


@pytest_asyncio.fixture(scope="session", autouse=True)
async def _connections_are_closed() -> AsyncIterator[None]:
    yield
    await aliases.close()


@dataclass
class Stage:
    """One provider: its server, and how the alias is set up."""

    kind: str
    server: ScriptedProvider
    settings: Settings

    def alias(self, *, base_url: str = "", options: dict[str, Any] | None = None, **bounds: Any) -> None:
        address = "endpoint_url" if self.kind == "huggingface" else "base_url"
        place = {address: base_url or self.server.base_url, "api_key": KEY, **(options or {})}
        alias = {"PROVIDER": self.kind, "MODEL": "scripted", "OPTIONS": place, **SHORT, **bounds}
        self.settings.DJANGO_CHAIN = {"LLM": {"MODELS": {"default": alias}, "BREAKER_FAILURES": 1000}}

    async def ask(self, *messages: BaseMessage | str, tools: Any = (), **more: Any) -> Outcome:
        asked = [HumanMessage(one) if isinstance(one, str) else one for one in messages]
        outcome = Outcome()
        run = RunContext.unlogged(NOBODY)
        try:
            async with aclosing(stream_route("", asked, run=run, tools=tools, **more)) as events:
                async for event in events:
                    outcome.events.append(event)
        except Exception as error:  # noqa: BLE001  the outcome is what is tested
            outcome.error = error
        return outcome

    async def script(self, *actions: script.Action) -> Outcome:
        """What comes of a message that is answered like this."""
        return await self.ask(self.server.script("it", *actions))

    @property
    def exchange(self) -> Exchange:
        return self.server.exchanges()[-1]


@pytest.fixture(params=["openai", "google", "huggingface"])
def stage(
    request: pytest.FixtureRequest, provider: ScriptedProvider, google: ScriptedProvider, settings: Settings
) -> Iterator[Stage]:
    module = {"google": "langchain_google_genai", "huggingface": "langchain_huggingface"}.get(request.param)
    if module is not None:
        pytest.importorskip(module)
    made = Stage(request.param, google if request.param == "google" else provider, settings)
    made.alias()
    health.forget()
    yield made
    made.server.forget()


async def test_an_answer_is_asked_to_keep_to_a_schema(stage: Stage) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    marker = stage.server.script("it", script.text('{"answer": "', 'yes"}'), script.ok())

    outcome = await stage.ask(marker, options={"json_schema": schema})

    assert outcome.text == '{"answer": "yes"}'
    # Each protocol has its own place for it.
    assert json.dumps(schema) in json.dumps(stage.exchange.body)


# The answer ----------------------------------------------------------------------------------------------------------


async def test_an_answer_comes_piece_by_piece_with_its_end(stage: Stage) -> None:
    outcome = await stage.script(script.role(), script.text("Hello ", "wor", "ld"), script.ok())

    assert [event.text for event in outcome.events if isinstance(event, Text)] == ["Hello ", "wor", "ld"]
    assert outcome.finished.finish_reason.lower() == "stop"
    assert outcome.finished.first_token_ms is not None


async def test_tokens_are_those_that_the_provider_counted(stage: Stage) -> None:
    usage = script.usage(prompt=120, completion=7, cached=40)

    outcome = await stage.script(script.text("a ", "b "), script.finish(), usage, script.done())

    assert (outcome.finished.input_tokens, outcome.finished.output_tokens) == (120, 7)
    assert outcome.finished.estimated is False
    # LangChain's chat class for Hugging Face drops it.
    assert outcome.finished.cached_input_tokens == (0 if stage.kind == "huggingface" else 40)


async def test_without_a_count_tokens_are_estimated_and_said_to_be(stage: Stage) -> None:
    outcome = await stage.script(script.text("a ", "b "), script.finish(), script.done())

    assert outcome.text == "a b "
    assert outcome.finished.estimated is True
    assert outcome.finished.output_tokens > 0


async def test_an_answer_that_reached_its_bound_says_so(stage: Stage) -> None:
    outcome = await stage.script(script.text("a "), script.ok("length"))

    assert outcome.finished.finish_reason.lower() in ("length", "max_tokens")


async def test_an_empty_answer_is_an_answer(stage: Stage) -> None:
    outcome = await stage.script(script.role(), script.ok())

    assert outcome.text == ""
    assert outcome.finished.first_token_ms is None


async def test_roles_arrive_as_the_provider_names_them(stage: Stage) -> None:
    await stage.ask(SystemMessage("be kind"), HumanMessage("hi"), AIMessage("hello"), HumanMessage("how are you?"))

    body = stage.exchange.body
    if stage.kind == "google":
        said = [(content["role"], content["parts"][0]["text"]) for content in body["contents"]]
        assert body["systemInstruction"]["parts"][0]["text"] == "be kind"
        assert said == [("user", "hi"), ("model", "hello"), ("user", "how are you?")]
    else:
        said = [(message["role"], message["content"]) for message in body["messages"]]
        assert said == [
            ("system", "be kind"), ("user", "hi"), ("assistant", "hello"), ("user", "how are you?"),
        ]  # fmt: skip
        assert body["model"] == "scripted"


async def test_the_key_is_sent_and_the_bound_on_tokens(stage: Stage) -> None:
    stage.alias(MAX_OUTPUT_TOKENS=33)

    await stage.ask("hi")

    headers, body = stage.exchange.headers, stage.exchange.body
    if stage.kind == "google":
        assert headers["x-goog-api-key"] == KEY
        assert body["generationConfig"]["maxOutputTokens"] == 33
    else:
        assert headers["authorization"] == f"Bearer {KEY}"
        assert 33 in (body.get("max_tokens"), body.get("max_completion_tokens"))


async def test_code_points_that_are_cut_over_packets_stay_whole(stage: Stage) -> None:
    outcome = await stage.script(script.bytewise("Grüße, 世界 🙂"), script.ok())

    assert outcome.text == "Grüße, 世界 🙂"


async def test_what_a_database_refuses_is_replaced(stage: Stage) -> None:
    outcome = await stage.script(script.text("a\x00b ", "\ud83d", "\ude42 ", "\ud800 x"), script.ok())

    assert outcome.error is None
    assert "\x00" not in outcome.text
    outcome.text.encode()


async def test_a_tool_call_is_told_when_tools_were_offered(stage: Stage) -> None:
    @make_tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    marker = stage.server.script("it", script.tool("weather", city="Bonn"), script.ok("tool_calls"))
    if stage.kind == "google":  # it has no word of its own for this end
        marker = stage.server.script("it", script.tool("weather", city="Bonn"), script.ok("stop"))

    outcome = await stage.ask(marker, tools=[weather])

    assert outcome.error is None
    told = next(event for event in outcome.events if isinstance(event, ToolCalls))
    assert [(call["name"], call["args"]) for call in told.calls] == [("weather", {"city": "Bonn"})]


# Stopping ------------------------------------------------------------------------------------------------------------


async def test_stopping_closes_the_connection_at_once(stage: Stage) -> None:
    marker = stage.server.script("it", script.text("a "), script.endless(every=0.01))

    events = stream_route("", [HumanMessage(marker)], run=RunContext.unlogged(NOBODY))
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Text):
                break
    closed = time.monotonic()
    exchange = await asyncio.to_thread(stage.server.wait_for, "it")

    assert await until(exchange.disconnected, 1)
    assert exchange.disconnected_at is not None
    assert exchange.disconnected_at - closed < 1


async def test_cancelling_while_nothing_comes_closes_the_connection(stage: Stage) -> None:
    gate = Gate()
    asked = asyncio.create_task(stage.ask(stage.server.script("it", script.begin(), script.wait(gate))))
    assert await until(gate.reached)

    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    assert await until(stage.exchange.disconnected, 1)
    gate.release()


async def test_a_hundred_answers_leave_no_connection_open(stage: Stage) -> None:
    marker = stage.server.script("it", script.text("a "), script.ok())

    for _ in range(100):
        assert (await stage.ask(marker)).error is None

    assert len({exchange.connection for exchange in stage.server.exchanges("it")}) <= 2


# Failures ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (400, errors.ProviderRefused),
        (401, errors.ProviderMisconfigured),
        (403, errors.ProviderMisconfigured),
        (404, errors.ProviderMisconfigured),
        (429, errors.ProviderRateLimited),
        (500, errors.ProviderUnavailable),
        (503, errors.ProviderUnavailable),
    ],
)
async def test_a_status_is_a_typed_failure_without_the_providers_text(
    stage: Stage, code: int, failure: type[errors.ProviderError]
) -> None:
    outcome = await stage.script(script.status(code))

    assert type(outcome.error) is failure
    assert "scripted" not in str(outcome.error)
    assert "sk-secret" not in repr(outcome.events)
    # The SDK did not try again.
    assert len(stage.server.exchanges("it")) == 1


async def test_the_advised_delay_is_kept(stage: Stage) -> None:
    outcome = await stage.script(script.status(429, headers={"Retry-After": "17"}))

    assert isinstance(outcome.error, errors.ProviderRateLimited)
    assert outcome.error.retry_after == 17


async def test_a_redirect_is_not_followed(stage: Stage) -> None:
    with ScriptedProvider() as elsewhere:
        outcome = await stage.script(script.status(307, headers={"Location": elsewhere.base_url}))

        assert isinstance(outcome.error, errors.ProviderError)
        assert elsewhere.exchanges() == []


async def test_a_refused_connection_is_a_failure_within_a_second(stage: Stage) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        stage.alias(base_url=f"http://127.0.0.1:{free.getsockname()[1]}/v1")
        begun = time.monotonic()
        outcome = await stage.ask("hi")

    assert type(outcome.error) is errors.ProviderUnavailable
    assert time.monotonic() - begun < 1


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port whose listener takes no more connections: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(8):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
            waiting.append(one)
        yield listener.getsockname()[1]
        for one in waiting:
            one.close()


async def test_connecting_has_a_bound_of_its_own(stage: Stage, deaf: int) -> None:
    stage.alias(base_url=f"http://127.0.0.1:{deaf}/v1", CONNECT_TIMEOUT=0.3)
    begun = time.monotonic()

    outcome = await stage.ask("hi")

    assert type(outcome.error) is errors.ProviderUnavailable
    assert 0.25 < time.monotonic() - begun < 2


async def test_silence_before_the_first_token_is_a_timeout(stage: Stage) -> None:
    stage.alias(FIRST_TOKEN_TIMEOUT=0.3)

    outcome = await stage.script(script.hang())

    assert type(outcome.error) is errors.ProviderTimeout
    assert await until(stage.exchange.disconnected, 1)


async def test_silence_between_two_tokens_is_a_timeout_and_the_text_is_kept(stage: Stage) -> None:
    stage.alias(BETWEEN_TOKENS_TIMEOUT=0.3)

    outcome = await stage.script(script.text("a "), script.hang())

    assert type(outcome.error) is errors.ProviderTimeout
    assert outcome.text == "a "
    assert await until(stage.exchange.disconnected, 1)


async def test_a_long_answer_outlives_the_bounds_of_its_tokens(stage: Stage) -> None:
    stage.alias(FIRST_TOKEN_TIMEOUT=0.4, BETWEEN_TOKENS_TIMEOUT=0.4)

    outcome = await stage.script(script.tokens(20, every=0.05), script.ok())

    assert outcome.error is None
    assert outcome.text == "word " * 20


@pytest.mark.parametrize("before", [[script.begin()], [script.role()], [script.text("a ")]])
async def test_a_cut_is_never_an_answer(stage: Stage, before: list[script.Action]) -> None:
    outcome = await stage.script(*before, script.cut())

    failures = (errors.ProviderTruncated, errors.ProviderUnavailable)
    assert type(outcome.error) in (failures[:1] if outcome.text else failures)
    assert not any(isinstance(event, ModelFinished) for event in outcome.events)


async def test_a_stream_that_ends_without_a_finish_reason_was_cut(stage: Stage) -> None:
    outcome = await stage.script(script.text("a "), script.done())

    assert type(outcome.error) is errors.ProviderTruncated
    assert outcome.text == "a "


@pytest.mark.parametrize(
    "rubbish",
    [
        b"data: {not json\n\n",
        b"data: []\n\n",
        b'data: "text"\n\n',
        b"data: \xff\xfe\n\n",
        b'data: {"choices": 3, "candidates": 3}\n\n',
        b"<html>502</html>\n\n",
    ],
)
async def test_rubbish_is_a_typed_failure(stage: Stage, rubbish: bytes) -> None:
    outcome = await stage.script(script.raw(rubbish))

    assert isinstance(outcome.error, errors.ProviderError)
    assert not any(isinstance(event, ModelFinished) for event in outcome.events)


async def test_an_error_amid_the_stream_is_a_typed_failure(stage: Stage) -> None:
    error = b"data: " + json.dumps({"error": {"code": 503, "message": "sk-secret", "status": "UNAVAILABLE"}}).encode()

    outcome = await stage.script(script.text("a "), script.raw(error + b"\n\n"))

    assert type(outcome.error) is errors.ProviderTruncated
    assert "secret" not in str(outcome.error)


async def test_a_wrong_value_of_an_option_is_named_without_the_value(stage: Stage) -> None:
    stage.alias(options={"temperature": "sk-warm"})

    outcome = await stage.ask("hi")

    assert "'temperature'" in str(outcome.error)
    assert "sk-warm" not in str(outcome.error)


async def test_no_thread_is_needed_for_a_token(stage: Stage) -> None:
    await stage.ask("warm")
    before = threading.active_count()

    await stage.script(script.tokens(50), script.ok())

    assert threading.active_count() <= before


# What only one of them does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["google"], indirect=True)
async def test_google_says_in_the_body_what_others_say_in_the_head(stage: Stage) -> None:
    refused = {"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}
    busy = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "12s"}]}}

    wrong_key = await stage.script(script.status(400, body=refused))
    limited = await stage.script(script.status(429, body=busy))

    assert type(wrong_key.error) is errors.ProviderMisconfigured
    assert isinstance(limited.error, errors.ProviderRateLimited)
    assert limited.error.retry_after == 12


@pytest.mark.parametrize("stage", ["huggingface"], indirect=True)
async def test_the_environments_token_goes_to_no_endpoint_of_ones_own(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of-the-operator")
    stage.alias(options={"api_key": None})

    assert (await stage.ask("hi")).error is None

    assert "authorization" not in stage.exchange.headers


async def test_no_cookie_of_one_answer_is_sent_with_the_next_question(stage: Stage) -> None:
    async def set_cookie(reply: script.Reply) -> None:
        await reply.begin(headers={"Set-Cookie": "who=me; Path=/"})

    marker = stage.server.script("it", set_cookie, script.text("a "), script.ok())

    for _ in range(2):
        assert (await stage.ask(marker)).error is None

    assert "cookie" not in stage.exchange.headers
