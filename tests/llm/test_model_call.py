"""One model call against a provider that behaves, and one that doesn't (faults F23 to F27 of the fault matrix)."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from kernel.errors import Misconfigured, Unavailable
from llm import errors
from llm.events import ModelFailed, ModelFinished, ModelStarted, Text
from llm.router import stream_route
from llm.state import RunContext
from tests.llm.conftest import NOBODY, Ask, Configure, stream
from tests.support import scripted_provider as act
from tests.support.scripted_provider import Gate, ScriptedProvider, until

pytestmark = pytest.mark.usefixtures("scripted_alias")


class TestAnAnswer:
    async def test_yields_start_text_and_finish_with_the_providers_count(self, ask: Ask) -> None:
        outcome = await ask("hello there")

        assert outcome.text == "echo: hello there"
        assert outcome.events[0] == ModelStarted(
            "default", "openai", "scripted", {}, [{"role": "user", "content": "hello there"}]
        )
        finished = outcome.finished
        assert (finished.input_tokens, finished.output_tokens, finished.estimated) == (11, 3, False)
        assert finished.finish_reason == "stop"
        assert 0 <= (finished.first_token_ms or 0) <= finished.latency_ms

    async def test_roles_go_out_and_are_logged_as_the_provider_names_them(self, provider: ScriptedProvider) -> None:
        messages = [SystemMessage("be brief"), HumanMessage("hi")]
        async with aclosing(stream_route("", messages, run=RunContext.unlogged(NOBODY))) as events:
            started = await anext(events)
            async for _ in events:
                pass

        expected = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
        assert isinstance(started, ModelStarted)
        assert started.messages == expected
        assert provider.exchanges()[0].messages == expected

    async def test_parameters_are_logged_without_secrets(self, ask: Ask, scripted_alias: Callable[..., None]) -> None:
        scripted_alias(options={"temperature": 0.5, "default_headers": {"X-Key": "sk-other"}})

        outcome = await ask("hello")

        assert outcome.started.parameters == {"temperature": 0.5}

    async def test_usage_is_estimated_and_marked_when_the_provider_sends_none(
        self, ask: Ask, provider: ScriptedProvider
    ) -> None:
        marker = provider.script("bare", act.text("four", "word"), act.finish(), act.done())

        finished = (await ask(marker)).finished

        assert finished.estimated
        assert finished.input_tokens > 0
        assert finished.output_tokens == 2

    async def test_usage_is_not_asked_for_if_an_option_says_so(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(options={"stream_usage": False})

        assert (await ask("hello")).finished.estimated
        assert "stream_options" not in provider.exchanges()[0].body

    async def test_a_server_that_falls_silent_after_the_finish_reason_has_answered(
        self, ask: Ask, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("llm.model_call.USAGE_GRACE", 0.1)
        marker = provider.script("silent", act.text("all"), act.finish(), act.hang())

        outcome = await ask(marker)

        assert outcome.text == "all"
        assert outcome.finished.estimated

    async def test_one_that_is_cut_after_the_finish_reason_has_answered(
        self, ask: Ask, provider: ScriptedProvider
    ) -> None:
        marker = provider.script("cut-late", act.text("all"), act.finish(), act.cut())

        assert (await ask(marker)).finished.finish_reason == "stop"

    async def test_an_empty_answer_is_an_answer(self, ask: Ask, provider: ScriptedProvider) -> None:
        outcome = await ask(provider.script("empty", act.role(), act.ok()))

        assert outcome.text == ""
        assert outcome.finished.first_token_ms is None

    async def test_calls_share_one_connection(self, ask: Ask, provider: ScriptedProvider) -> None:
        for _ in range(3):
            await ask("hello")

        assert len({exchange.connection for exchange in provider.exchanges()}) == 1


class TestRefusals:
    """F23."""

    @pytest.mark.parametrize(
        ("code", "failure"),
        [
            (400, errors.ProviderRefused),
            (401, errors.ProviderMisconfigured),
            (403, errors.ProviderMisconfigured),
            (404, errors.ProviderMisconfigured),
            (413, errors.ProviderRefused),
            (422, errors.ProviderRefused),
            (429, errors.ProviderRateLimited),
            (500, errors.ProviderUnavailable),
            (503, errors.ProviderUnavailable),
            (529, errors.ProviderUnavailable),
        ],
    )
    async def test_a_status_has_its_typed_failure_and_says_nothing_of_the_provider(
        self, ask: Ask, provider: ScriptedProvider, code: int, failure: type[Exception]
    ) -> None:
        outcome = await ask(provider.script("refused", act.status(code)))

        assert type(outcome.error) is failure
        assert "sk-secret" not in str(outcome.error)
        assert len(provider.exchanges("refused")) == 1

    @pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("0.5", 0.5), ("never", 2), ("-3", 2), ("999999", 3600)])
    async def test_a_rate_limit_says_when_to_try_again(
        self, ask: Ask, provider: ScriptedProvider, header: str, seconds: float
    ) -> None:
        outcome = await ask(provider.script("limited", act.status(429, headers={"Retry-After": header})))

        assert isinstance(outcome.error, errors.ProviderRateLimited)
        assert outcome.error.retry_after == seconds

    async def test_a_used_up_credit_is_the_operators_business(self, ask: Ask, provider: ScriptedProvider) -> None:
        body = {"error": {"message": "no credit", "type": "insufficient_quota", "code": "insufficient_quota"}}

        outcome = await ask(provider.script("broke", act.status(429, body=body)))

        assert isinstance(outcome.error, errors.ProviderMisconfigured)

    async def test_a_closed_port_is_unavailable(self, ask: Ask, scripted_alias: Callable[..., None]) -> None:
        with socket.socket() as placeholder:
            placeholder.bind(("127.0.0.1", 0))
            scripted_alias(options={"base_url": f"http://127.0.0.1:{placeholder.getsockname()[1]}/v1"})

            assert isinstance((await ask("hello")).error, errors.ProviderUnavailable)

    async def test_a_tls_failure_is_unavailable(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(options={"base_url": provider.base_url.replace("http:", "https:")})

        assert isinstance((await ask("hello")).error, errors.ProviderUnavailable)

    async def test_a_redirect_does_not_carry_the_key_away(self, ask: Ask, provider: ScriptedProvider) -> None:
        elsewhere = {"Location": f"{provider.base_url}/elsewhere/chat/completions"}

        outcome = await ask(provider.script("moved", act.status(307, headers=elsewhere)))

        assert isinstance(outcome.error, errors.ProviderMisconfigured)
        assert len(provider.exchanges()) == 1


class TestRetries:
    """F23: only before the first token, and within its time."""

    async def test_a_failing_server_is_asked_again(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("llm.retries.BACKOFF", 0.01)
        scripted_alias(MAX_RETRIES=2)
        marker = provider.script_tries(
            "flaky", [act.status(503)], [act.begin(), act.cut()], [act.text("at last"), act.ok()]
        )

        assert (await ask(marker)).text == "at last"
        assert len(provider.exchanges("flaky")) == 3

    async def test_tries_are_bounded(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("llm.retries.BACKOFF", 0.01)
        scripted_alias(MAX_RETRIES=1)

        outcome = await ask(provider.script("down", act.status(500)))

        assert isinstance(outcome.error, errors.ProviderUnavailable)
        assert len(provider.exchanges("down")) == 2

    async def test_retry_after_is_honoured(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(MAX_RETRIES=1)
        limited = [act.status(429, headers={"Retry-After": "0.3"})]
        marker = provider.script_tries("patience", limited, [act.text("ok"), act.ok()])

        assert (await ask(marker)).text == "ok"
        first, second = provider.exchanges("patience")
        assert second.received_at - first.received_at >= 0.3

    async def test_a_longer_wait_than_the_first_token_may_take_is_left_to_the_caller(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(MAX_RETRIES=3, FIRST_TOKEN_TIMEOUT=1.0)
        begun = time.monotonic()

        outcome = await ask(provider.script("later", act.status(429, headers={"Retry-After": "40"})))

        assert isinstance(outcome.error, errors.ProviderRateLimited)
        assert outcome.error.retry_after == 40
        assert time.monotonic() - begun < 0.9

    async def test_a_longer_wait_than_the_call_may_take_is_left_to_the_caller(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(MAX_RETRIES=3, FIRST_TOKEN_TIMEOUT=30.0, TOTAL_TIMEOUT=0.5)

        outcome = await ask(provider.script("later", act.status(429, headers={"Retry-After": "5"})))

        assert isinstance(outcome.error, errors.ProviderRateLimited)

    @pytest.mark.parametrize("fault", [act.status(400), act.status(401)])
    async def test_what_would_fail_again_is_not_tried_again(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None], fault: act.Action
    ) -> None:
        scripted_alias(MAX_RETRIES=3)

        await ask(provider.script("hopeless", fault))

        assert len(provider.exchanges("hopeless")) == 1

    async def test_nothing_is_tried_again_after_the_first_token(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(MAX_RETRIES=3)

        outcome = await ask(provider.script("begun", act.text("one "), act.cut()))

        assert outcome.text == "one "
        assert len(provider.exchanges("begun")) == 1


class TestSilence:
    """F24."""

    @pytest.mark.parametrize("before", [[], [act.begin()], [act.begin(), act.role()]])
    async def test_before_the_first_token_is_a_timeout(
        self,
        ask: Ask,
        provider: ScriptedProvider,
        scripted_alias: Callable[..., None],
        before: list[act.Action],
    ) -> None:
        scripted_alias(FIRST_TOKEN_TIMEOUT=0.4, BETWEEN_TOKENS_TIMEOUT=0.1)
        begun = time.monotonic()

        outcome = await ask(provider.script("mute", *before, act.hang()))

        assert isinstance(outcome.error, errors.ProviderTimeout)
        assert 0.35 < time.monotonic() - begun < 1.4
        assert await until(provider.wait_for("mute").disconnected, 1)

    async def test_between_tokens_is_a_timeout_and_the_text_stays(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(FIRST_TOKEN_TIMEOUT=30.0, BETWEEN_TOKENS_TIMEOUT=0.3)
        begun = time.monotonic()

        outcome = await ask(provider.script("stuck", act.text("one ", "two "), act.hang()))

        assert isinstance(outcome.error, errors.ProviderTimeout)
        assert outcome.text == "one two "
        assert time.monotonic() - begun < 1.5
        assert await until(provider.wait_for("stuck").disconnected, 1)

    async def test_slow_but_steady_tokens_are_bounded_in_all(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(TOTAL_TIMEOUT=0.5)
        begun = time.monotonic()

        outcome = await ask(provider.script("slow", act.endless(every=0.02)))

        assert isinstance(outcome.error, errors.ProviderTimeout)
        assert outcome.text.startswith("word word ")
        assert 0.4 < time.monotonic() - begun < 1.5

    async def test_keep_alive_comments_are_no_tokens(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(FIRST_TOKEN_TIMEOUT=0.4)
        comments = act.raw(*[b": still here\n\n"] * 1000)

        assert isinstance((await ask(provider.script("chatter", comments))).error, errors.ProviderTimeout)

    async def test_the_time_that_the_consumer_takes_is_not_the_providers(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(FIRST_TOKEN_TIMEOUT=0.2, BETWEEN_TOKENS_TIMEOUT=0.2, TOTAL_TIMEOUT=0.4)
        marker = provider.script("brisk", act.text("one ", "two"), act.ok())
        texts = []

        async with aclosing(stream(marker)) as events:
            async for event in events:
                await asyncio.sleep(0.3)
                if isinstance(event, Text):
                    texts.append(event.text)

        assert texts == ["one ", "two"]

    async def test_no_cancellation_is_left_behind(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(FIRST_TOKEN_TIMEOUT=0.1)

        await ask(provider.script("mute", act.hang()))

        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async def test_events_may_be_asked_for_from_different_tasks(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(BETWEEN_TOKENS_TIMEOUT=0.2)
        marker = provider.script("handed-over", act.text("one "), act.hang())

        async with aclosing(stream(marker)) as events:
            assert isinstance(await asyncio.wait_for(anext(events), 5), ModelStarted)
            assert await asyncio.wait_for(anext(events), 5) == Text("one ")
            assert await asyncio.wait_for(anext(events), 5) == ModelFailed("provider_timeout")
            with pytest.raises(errors.ProviderTimeout):
                await asyncio.wait_for(anext(events), 5)


class TestBrokenStreams:
    """F25 and F26."""

    async def test_a_cut_is_truncated_and_the_text_stays(self, ask: Ask, provider: ScriptedProvider) -> None:
        outcome = await ask(provider.script("cut", act.text("half a "), act.cut()))

        assert isinstance(outcome.error, errors.ProviderTruncated)
        assert outcome.text == "half a "

    @pytest.mark.parametrize("ending", [[], [act.done()]])
    async def test_an_end_without_a_finish_reason_is_truncated(
        self, ask: Ask, provider: ScriptedProvider, ending: list[act.Action]
    ) -> None:
        outcome = await ask(provider.script("unfinished", act.text("half a "), *ending))

        assert isinstance(outcome.error, errors.ProviderTruncated)
        assert outcome.text == "half a "

    @pytest.mark.parametrize(
        "garbage",
        [
            pytest.param(b"data: {not json\n\n", id="json"),
            pytest.param(b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n', id="utf-8"),
            pytest.param(b'data: ["a", "list"]\n\n', id="shape"),
            pytest.param(b'data: {"choices": [{"index": 0}]}\n\n', id="no delta"),
            pytest.param(b'data: {"choices": "none"}\n\n', id="choices"),
            pytest.param(b"<html>Bad gateway</html>", id="html"),
        ],
    )
    @pytest.mark.parametrize("before", ["", "so far "])
    async def test_garbage_is_a_bad_response_and_the_text_stays(
        self, ask: Ask, provider: ScriptedProvider, garbage: bytes, before: str
    ) -> None:
        said = [act.text(before)] if before else []

        outcome = await ask(provider.script("garbage", *said, act.raw(garbage)))

        assert isinstance(outcome.error, errors.ProviderBadResponse | errors.ProviderTruncated)
        assert outcome.text == before

    @pytest.mark.parametrize(
        ("error", "failure"),
        [
            ({"message": "overloaded", "type": "server_error"}, errors.ProviderUnavailable),
            ({"message": "slow down", "type": "rate_limit_error"}, errors.ProviderRateLimited),
        ],
    )
    async def test_an_error_amid_the_stream_is_typed(
        self, ask: Ask, provider: ScriptedProvider, error: dict[str, str], failure: type[Exception]
    ) -> None:
        assert isinstance((await ask(provider.script("late", act.stream_error(**error)))).error, failure)

    async def test_code_points_cut_over_chunks_are_whole(self, ask: Ask, provider: ScriptedProvider) -> None:
        outcome = await ask(provider.script("bytes", act.bytewise("naïve 🙂 café"), act.ok()))

        assert outcome.text == "naïve 🙂 café"

    async def test_nul_and_lone_surrogates_become_storable(self, ask: Ask, provider: ScriptedProvider) -> None:
        outcome = await ask(provider.script("unstorable", act.text("a\0b", "\ud83d", "!", "\udc00"), act.ok()))

        assert outcome.text == "a�b�!�"

    async def test_a_surrogate_pair_cut_over_two_tokens_is_joined(self, ask: Ask, provider: ScriptedProvider) -> None:
        outcome = await ask(provider.script("pair", act.text("so \ud83d", "\ude42 it is"), act.ok()))

        assert outcome.text == "so 🙂 it is"

    async def test_a_pair_that_never_ends_is_replaced(self, ask: Ask, provider: ScriptedProvider) -> None:
        assert (await ask(provider.script("half-pair", act.text("so \ud83d"), act.ok()))).text == "so �"

    async def test_a_tool_call_that_nobody_offered_is_a_bad_response(
        self, ask: Ask, provider: ScriptedProvider
    ) -> None:
        call = {"index": 0, "id": "c", "type": "function", "function": {"name": "rm", "arguments": '{"all": tr'}}

        outcome = await ask(provider.script("tool", act.delta(tool_calls=[call]), act.ok("tool_calls")))

        assert isinstance(outcome.error, errors.ProviderBadResponse)

    async def test_a_megabyte_in_one_chunk_is_capped(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(llm={"MAX_ANSWER_CHARS": 1000})

        outcome = await ask(provider.script("huge", act.text("x" * 1_000_000), act.ok()))

        assert outcome.text == "x" * 1000
        assert outcome.finished.finish_reason == "length"


class TestAnEndlessAnswer:
    """F27."""

    async def test_ends_at_the_cap_and_closes_the_connection(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(llm={"MAX_ANSWER_CHARS": 503})

        outcome = await ask(provider.script("endless", act.endless("word ")))

        assert len(outcome.text) == 503
        assert outcome.finished.finish_reason == "length"
        assert outcome.finished.estimated
        assert await until(provider.wait_for("endless").disconnected, 1)

    async def test_tokens_without_text_end_by_time(
        self, ask: Ask, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        scripted_alias(FIRST_TOKEN_TIMEOUT=0.3)

        outcome = await ask(provider.script("blank", act.endless("", every=0.005)))

        assert isinstance(outcome.error, errors.ProviderTimeout)


class TestStopping:
    async def test_closing_the_generator_closes_the_connection(self, provider: ScriptedProvider) -> None:
        gate = Gate()
        marker = provider.script("stop", act.text("one "), act.wait(gate))
        events = stream(marker)
        await anext(events)
        assert await anext(events) == Text("one ")

        begun = time.monotonic()
        await events.aclose()

        exchange = provider.wait_for("stop")
        assert await until(exchange.disconnected, 1)
        assert exchange.disconnected_at is not None
        assert exchange.disconnected_at - begun < 1

    @pytest.mark.parametrize("script", [[act.hang()], [act.begin(), act.hang()], [act.text("one "), act.hang()]])
    async def test_cancelling_the_task_closes_the_connection_and_is_no_failure(
        self, ask: Ask, provider: ScriptedProvider, script: list[act.Action]
    ) -> None:
        task = asyncio.create_task(ask(provider.script("cancelled", *script)))  # type: ignore[arg-type]
        exchange = await asyncio.to_thread(provider.wait_for, "cancelled")
        await asyncio.sleep(0.1)

        begun = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert await until(exchange.disconnected, 1)
        assert exchange.disconnected_at is not None
        assert exchange.disconnected_at - begun < 1

    async def test_an_error_of_the_consumer_is_not_the_providers(self, provider: ScriptedProvider) -> None:
        marker = provider.script("mine", act.text("one "), act.hang())
        events = stream(marker)
        await anext(events)
        await anext(events)

        with pytest.raises(ZeroDivisionError):
            await events.athrow(ZeroDivisionError())

        assert await until(provider.wait_for("mine").disconnected, 1)

    async def test_the_next_call_works(self, ask: Ask, provider: ScriptedProvider) -> None:
        for fault in (act.status(500), act.cut(), act.raw(b"data: {\n\n")):
            assert (await ask(provider.script("fault", fault))).error is not None

            assert (await ask("hello")).text == "echo: hello"


class TestOtherModels:
    async def test_a_factory_of_ones_own_streams_too(self, ask: Ask, configure: Configure) -> None:
        from django_chain.providers import register_llm_provider
        from llm.providers.fake import FakeChatModel
        from llm.registry import llm_providers

        @register_llm_provider("custom_provider")
        def create_custom_llm(config: dict[str, Any]) -> FakeChatModel:
            return FakeChatModel(**config)

        try:
            options = {"text": "mine", "finish_reason": None}
            configure(default={"PROVIDER": "custom_provider", "MODEL": "own", "OPTIONS": options})
            assert (await ask("hello")).text == "mine"
        finally:
            llm_providers.remove("custom_provider")

    async def test_blocks_that_are_no_text_are_left_out(self, ask: Ask, configure: Configure) -> None:
        from collections.abc import AsyncIterator

        from langchain_core.messages import AIMessageChunk
        from langchain_core.outputs import ChatGenerationChunk

        from llm.providers.fake import FakeChatModel
        from llm.registry import llm_providers

        class Blocks(FakeChatModel):
            async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
                for content in ([{"type": "thinking", "thinking": "hm"}], [{"type": "text", "text": "yes"}], ["!"]):
                    yield ChatGenerationChunk(message=AIMessageChunk(content=content))

        llm_providers.add("blocks", lambda config: Blocks(**config))
        try:
            configure(default={"PROVIDER": "blocks", "MODEL": "own"})
            assert (await ask("hello")).text == "yes!"
        finally:
            llm_providers.remove("blocks")

    async def test_an_unknown_alias_names_the_known_ones(self) -> None:
        with pytest.raises(Misconfigured, match="default"):
            await anext(stream("hello", "typo"))

    async def test_an_option_with_a_typo_is_named(self, ask: Ask, scripted_alias: Callable[..., None]) -> None:
        scripted_alias(options={"temprature": 1})

        outcome = await ask("hello")

        assert isinstance(outcome.error, Misconfigured)
        assert "temprature" in str(outcome.error)

    @pytest.mark.parametrize("code", ["provider_unavailable", "provider_rate_limited", "provider_refused"])
    async def test_the_fake_fails_on_command(self, ask: Ask, configure: Configure, code: str) -> None:
        options = {"text": "one two three", "error": code, "error_after": 2}
        configure(default={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": options, "MAX_RETRIES": 0})

        outcome = await ask("hello")

        assert outcome.text == "one two "
        assert getattr(outcome.error, "code", None) == code


def test_every_failure_that_passes_says_when_to_try_again() -> None:
    for failure in (errors.ProviderUnavailable(), errors.ProviderTimeout(), errors.ProviderRateLimited()):
        assert isinstance(failure, Unavailable)
        assert failure.retry_after


def test_a_finish_reason_has_a_default() -> None:
    assert ModelFinished(1, 1, estimated=True, first_token_ms=None, latency_ms=1).finish_reason == "stop"
