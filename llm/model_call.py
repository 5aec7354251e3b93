"""One call of one model: the hot path of every token.

LangChain's `astream` under `aclosing`, so that stopping closes the provider's connection at once, and without a
callback handler: even an inline one that ignores tokens costs a gather for each (docs/decisions/0005). What the SDKs
leave open is settled here: time bounds, retries before the first token, text that can be stored, usage that is never
unknown, one tree of failures.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any, cast

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage

from kernel.conf import config
from kernel.errors import ChainError
from kernel.text import StorableStream
from llm import aliases, usage
from llm.configuration import PromptVersion
from llm.errors import (
    ProviderBadResponse,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderTruncated,
    ProviderUnavailable,
)
from llm.events import Event, ModelFailed, ModelFinished, ModelStarted, Text
from llm.journal import Call, Closed
from llm.models import CallStatus
from llm.providers import failures
from llm.state import RunContext
from llm.watchdog import Watchdog

logger = logging.getLogger(__name__)

#: Seconds that a complete answer waits for the usage that should follow it.
USAGE_GRACE = 2.0
#: Seconds before the first retry when the provider names none; doubled for each further one.
BACKOFF = 0.5
_RETRYABLE = (ProviderRateLimited, ProviderUnavailable, ProviderTimeout)
_FINISH_KEYS = ("finish_reason", "stop_reason", "status")


async def stream_model(
    alias: str, messages: Sequence[BaseMessage], *, run: RunContext | None = None, prompt: PromptVersion | None = None
) -> AsyncGenerator[Event, None]:
    """Call the model of `alias` (empty: the default): ModelStarted, Text…, ModelFinished.

    `run` keeps the account of it; without one nothing is written. Raises a ProviderError (or Misconfigured,
    BudgetExceeded) after the text that came until then. Close the generator, or cancel the task, to stop: the
    provider's connection is closed before that returns, and the stop is not a failure.
    """
    model = aliases.resolve(alias)
    call = _call(model, messages, run, prompt)
    if run is not None:
        await run.journal.open(call)
    answer = _Answer(promised=model.provider.promises_finish_reason)
    ended: tuple[CallStatus | None, str] = (None, "")
    try:
        yield ModelStarted(call.alias, call.provider, call.model, call.parameters, call.messages, call.number)
        try:
            async with aclosing(_tries(model, messages, answer)) as texts:
                async for text in texts:
                    yield text
        except ChainError as error:
            ended = (CallStatus.FAILED, error.code)
            yield ModelFailed(error.code, call.number)
            raise
        ended = (CallStatus.OK, "")
    finally:
        if run is not None:
            run.journal.close(answer.closed(call, *ended))
    yield answer.finished(call)


def _call(
    model: aliases.BuiltModel, messages: Sequence[BaseMessage], run: RunContext | None, prompt: PromptVersion | None
) -> Call:
    bounds = model.bounds
    return Call(
        number=0 if run is None else run.next_call(),
        alias=model.alias,
        provider=bounds.provider,
        model=bounds.model,
        parameters=model.parameters,
        messages=[_logged(message) for message in messages],
        prompt_id=None if prompt is None else prompt.id,
        price=None if run is None else run.configuration.price_of(bounds.provider, bounds.model),
        max_output_tokens=bounds.max_output_tokens,
    )


async def _tries(
    model: aliases.BuiltModel, messages: Sequence[BaseMessage], answer: "_Answer"
) -> AsyncGenerator[Text, None]:
    with Watchdog(model.bounds) as watch:
        answer.watch = watch
        tries = 0
        while True:
            answer.usage = None
            stream = model.chat.astream(list(messages))
            try:
                async with aclosing(cast("AsyncGenerator[AIMessageChunk, None]", stream)) as chunks:
                    watch.resume()
                    async for chunk in chunks:
                        if text := answer.take(chunk):
                            watch.pause()
                            yield Text(text)
                            watch.resume()
                        if answer.full:
                            break
                answer.end()
                break
            except BaseException as error:
                failure = _failure(error, model, answer, watch)
                if failure is None:
                    raise
                if answer.complete and not isinstance(error, ChainError):
                    break
                delay = _delay(error, failure, tries) if tries < model.bounds.max_retries else None
                logger.warning("model %s: try %d: %s (%s)", model.alias, tries + 1, failure.code, type(error).__name__)
                if delay is None or not watch.allows(delay):
                    raise failure from error
            tries += 1
            watch.rest()
            await asyncio.sleep(delay)
        watch.pause()
    if tail := answer.tail():
        yield Text(tail)


class _Answer:
    """What came of one answer: its text and cleaning, its end, its times."""

    watch: Watchdog

    def __init__(self, *, promised: bool) -> None:
        self._promised = promised
        self._pieces: list[str] = []
        self._clean = StorableStream()
        self._room = config().llm.max_answer_chars
        self._length = 0
        self._started = monotonic()
        self._first_token: float | None = None
        self.finish_reason = ""
        #: The provider's count so far; some send it in parts.
        self.usage: UsageMetadata | None = None
        self._ended = False
        #: LLM.MAX_ANSWER_CHARS is reached.
        self.full = False

    @property
    def began(self) -> bool:
        return self._first_token is not None

    @property
    def complete(self) -> bool:
        """All text is here; only the count may be missing."""
        return self.full or bool(self.finish_reason)

    def take(self, chunk: AIMessageChunk) -> str:
        """The chunk's text, ready to be stored; "" if it has none."""
        text: Any = chunk.content
        if text.__class__ is not str:
            text = _text_of(text)
        if text:
            text = self._clean.feed(text)
            self._length += len(text)
            if self._first_token is None:
                self._first_token = monotonic()
            if self._length > self._room:
                text = text[: len(text) - (self._length - self._room)]
                self._length, self.full, self.finish_reason = self._room, True, "length"
            self._pieces.append(text)
        elif chunk.tool_call_chunks or chunk.additional_kwargs:
            self.watch.heard()
        if chunk.usage_metadata is not None:
            self.usage = add_usage(self.usage, chunk.usage_metadata)
        metadata = chunk.response_metadata
        if metadata and not self.finish_reason:
            self._look_for_the_end(metadata)
        return cast("str", text)

    def _look_for_the_end(self, metadata: dict[str, Any]) -> None:
        for key in _FINISH_KEYS:
            if reason := metadata.get(key):
                self.finish_reason = str(reason)
                self.watch.shorten(USAGE_GRACE)

    def end(self) -> None:
        """The stream ended by itself. Raises if that was no end of an answer."""
        if self.watch.expired():
            raise ProviderTimeout
        if self._promised and not self.complete:
            raise ProviderTruncated
        if not self.began and self.finish_reason in ("tool_calls", "function_call"):
            raise ProviderBadResponse("The model asked for a tool, and none was offered; try again.")
        self._ended = not self.full

    def tail(self) -> str:
        """What the cleaning still holds back."""
        tail = "" if self.full else self._clean.close()
        self._pieces.append(tail)
        return tail

    def finished(self, call: Call) -> ModelFinished:
        tokens, cached = self._tokens(call)
        return ModelFinished(
            *tokens,
            self._first_token_ms(),
            _milliseconds(self._started, monotonic()),
            self.finish_reason or "stop",
            cached_input_tokens=cached,
            call=call.number,
        )

    def closed(self, call: Call, status: CallStatus | None, error_category: str) -> Closed:
        """For the log, however it ended."""
        tokens, cached = self._tokens(call)
        return Closed(
            call=call,
            status=status,
            usage=tokens,
            error_category=error_category,
            text="".join(self._pieces),
            cached_input_tokens=cached,
            first_token_ms=self._first_token_ms(),
            latency_ms=_milliseconds(self._started, monotonic()),
            metadata={"finish_reason": self.finish_reason} if self.finish_reason else {},
        )

    def _tokens(self, call: Call) -> tuple[usage.Usage, int]:
        """The count, and how many input tokens of it the provider had in its own cache."""
        # What was cut short may have been counted in part.
        counted = self.usage if self._ended else None
        if counted and (counted["input_tokens"] or counted["output_tokens"]):
            cached = (counted.get("input_token_details") or {}).get("cache_read") or 0
            return usage.Usage(counted["input_tokens"], counted["output_tokens"], estimated=False), cached
        return usage.estimate(call.messages, self._length), 0

    def _first_token_ms(self) -> int | None:
        return None if self._first_token is None else _milliseconds(self._started, self._first_token)


def _failure(error: BaseException, model: aliases.BuiltModel, answer: _Answer, watch: Watchdog) -> ChainError | None:
    """The typed failure behind an exception; None if it is not the provider's (a stop, or the consumer's own)."""
    if watch.expired():
        return ProviderTimeout()
    if not isinstance(error, Exception) or not watch.waiting:
        return None
    if isinstance(error, ChainError):
        return error
    failure = model.provider.explain(error) or failures.explain(error)
    # Mid-answer the caller must know that the text is cut, whatever cut it.
    return ProviderTruncated() if answer.began and isinstance(failure, ProviderUnavailable) else failure


def _delay(error: BaseException, failure: ChainError, tries: int) -> float | None:
    """Seconds until another try; None if the failure would only come again."""
    if not isinstance(failure, _RETRYABLE) or not isinstance(error, Exception):
        return None
    return failures.advised_delay(error) or BACKOFF * 2**tries * random.uniform(0.5, 1)  # noqa: S311  jitter, no secret


def _logged(message: BaseMessage) -> dict[str, Any]:
    role = {"human": "user", "ai": "assistant"}.get(message.type, message.type)
    return {"role": role, "content": message.content}


def _text_of(content: list[Any]) -> str:
    """The text of a list of content blocks; thoughts, images and tool calls are none."""
    return "".join(
        block if isinstance(block, str) else str(block.get("text", ""))
        for block in content
        if isinstance(block, str) or block.get("type") in ("text", None)
    )


def _milliseconds(start: float, end: float) -> int:
    return round((end - start) * 1000)
