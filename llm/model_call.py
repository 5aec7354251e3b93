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
from llm.errors import (
    ProviderBadResponse,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderTruncated,
    ProviderUnavailable,
)
from llm.events import Event, ModelFinished, ModelStarted, Text
from llm.providers import failures
from llm.watchdog import Watchdog

logger = logging.getLogger(__name__)

#: Seconds that a complete answer waits for the usage that should follow it.
USAGE_GRACE = 2.0
#: Seconds before the first retry when the provider names none; doubled for each further one.
BACKOFF = 0.5
_RETRYABLE = (ProviderRateLimited, ProviderUnavailable, ProviderTimeout)
_FINISH_KEYS = ("finish_reason", "stop_reason", "status")


async def stream_model(alias: str, messages: Sequence[BaseMessage]) -> AsyncGenerator[Event, None]:
    """Call the model of `alias` (empty: the default): ModelStarted, Text…, ModelFinished.

    Raises a ProviderError (or Misconfigured) after the text that came until then. Close the generator, or cancel the
    task, to stop: the provider's connection is closed before that returns, and the stop is not a failure.
    """
    model = aliases.resolve(alias)
    started = ModelStarted(
        model.alias, model.bounds.provider, model.bounds.model, model.parameters, [_logged(m) for m in messages]
    )
    yield started
    with Watchdog(model.bounds) as watch:
        answer = _Answer(watch, promised=model.provider.promises_finish_reason)
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
    yield answer.finished(started)


class _Answer:
    """What came of one answer: its text's length and cleaning, its end, its times."""

    def __init__(self, watch: Watchdog, *, promised: bool) -> None:
        self._watch = watch
        self._promised = promised
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
        elif chunk.tool_call_chunks or chunk.additional_kwargs:
            self._watch.heard()
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
                self._watch.shorten(USAGE_GRACE)

    def end(self) -> None:
        """The stream ended by itself. Raises if that was no end of an answer."""
        if self._watch.expired():
            raise ProviderTimeout
        if self._promised and not self.complete:
            raise ProviderTruncated
        if not self.began and self.finish_reason in ("tool_calls", "function_call"):
            raise ProviderBadResponse("The model asked for a tool, and none was offered; try again.")
        self._ended = not self.full

    def tail(self) -> str:
        """What the cleaning still holds back."""
        return "" if self.full else self._clean.close()

    def finished(self, started: ModelStarted) -> ModelFinished:
        tokens = usage.estimate(started.messages, self._length)
        # What was cut short may have been counted in part.
        counted = self.usage if self._ended else None
        if counted and (counted["input_tokens"] or counted["output_tokens"]):
            tokens = usage.Usage(counted["input_tokens"], counted["output_tokens"], estimated=False)
        first = None if self._first_token is None else _milliseconds(self._started, self._first_token)
        return ModelFinished(*tokens, first, _milliseconds(self._started, monotonic()), self.finish_reason or "stop")


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
