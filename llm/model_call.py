"""One request to one model: the hot path of every token.

LangChain's `astream` under `aclosing`, so that stopping closes the provider's connection at once, and without a
callback handler unless one is asked for: even an inline one that ignores tokens costs a gather for each
(docs/decisions/0005). What the SDKs leave open is settled here: time bounds, text that can be stored, usage that is
never unknown, one tree of failures. Whether to ask again is llm.router's business.
"""

import functools
import json
import operator
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any, cast

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool

from kernel.conf import config
from kernel.errors import ChainError, Misconfigured
from kernel.text import StorableStream
from llm import callbacks, usage, window
from llm.aliases import BuiltModel
from llm.configuration import PromptVersion
from llm.effective import PUBLIC_OPTIONS
from llm.errors import ProviderBadResponse, ProviderTimeout, ProviderTruncated, ProviderUnavailable
from llm.events import Event, ModelFailed, ModelFinished, ModelStarted, Text, ToolCalls
from llm.journal import Call, Closed
from llm.models import CallStatus
from llm.providers import failures
from llm.state import RunContext
from llm.watchdog import Watchdog

#: Seconds that a complete answer waits for the usage that should follow it.
USAGE_GRACE = 2.0
_FINISH_KEYS = ("finish_reason", "stop_reason", "status")


async def stream_model(
    model: BuiltModel,
    messages: Sequence[BaseMessage],
    *,
    run: RunContext,
    watch: Watchdog,
    prompt: PromptVersion | None = None,
    tools: Sequence[BaseTool] = (),
    options: Mapping[str, Any] | None = None,
) -> AsyncGenerator[Event, None]:
    """Ask `model` once: ModelStarted, Text…, ToolCalls if it asks for some of `tools`, ModelFinished.

    `run` keeps the account of it, `watch` the time bounds of all tries. `options` go to the provider by its own names,
    but for `max_tokens`, which is bounded by the alias's MAX_OUTPUT_TOKENS, and `json_schema`, which the answer is to
    keep to: each provider has its own words for them.
    After a failure comes ModelFailed, and the ProviderError is raised (or Misconfigured, BudgetExceeded, which come
    before anything is asked). Close the generator, or cancel the task, to stop: the provider's connection is closed
    before that returns, and the stop is not a failure.
    """
    asked = _options(model, options, run)
    chat = _with_tools(model, tools)
    handlers = callbacks.for_run(run)
    watched: RunnableConfig | None = {"callbacks": handlers} if handlers else None
    stream = functools.partial(chat.astream, list(messages), watched, **asked)
    beside = _size(chat.kwargs if tools else {}) + _size((options or {}).get("json_schema") or {})
    call = _call(model, messages, run, prompt, asked, tool_bytes=beside)
    await run.journal.open(call)
    answer = _Answer(watch, promised=model.provider.promises_finish_reason, tools=bool(tools))
    failure: ChainError | None = None
    status: CallStatus | None = None
    try:
        yield ModelStarted(call.alias, call.provider, call.model, call.parameters, call.messages, call.number)
        watch.begin()
        try:
            async with aclosing(cast("AsyncGenerator[AIMessageChunk, None]", stream())) as chunks:
                watch.resume()
                async for chunk in chunks:
                    if text := answer.take(chunk):
                        watch.pause()
                        yield Text(text)
                        watch.resume()
                    if answer.full:
                        break
            answer.end()
        except BaseException as error:  # noqa: BLE001  a watchdog cancels; what is not the provider's is raised again
            failure = _failure(error, model, answer, watch)
        finally:
            watch.rest()
        if failure is not None:
            status = CallStatus.FAILED
            yield ModelFailed(failure.code, call.number)
            raise failure
        if tail := answer.tail():
            watch.spoke = True
            yield Text(tail)
        status = CallStatus.OK
    finally:
        run.journal.close(answer.closed(call, status, "" if failure is None else failure.code))
    if answer.tool_calls:
        yield ToolCalls(answer.tool_calls, call.number)
    yield answer.finished(call)


def _options(model: BuiltModel, options: Mapping[str, Any] | None, run: RunContext) -> dict[str, Any]:
    """What goes to the provider with this call, beside what the model was built with."""
    asked = {name: value for name, value in (options or {}).items() if value is not None}
    if schema := asked.pop("json_schema", None):
        asked |= model.provider.keep_to_schema(schema)
    limit = model.provider.output_limit
    wanted = asked.pop("max_tokens", None)
    if bound := model.bounds.max_output_tokens:
        asked[limit] = min(bound, wanted or model.bounds.options.get(limit) or bound)
    elif wanted is not None:
        asked[limit] = wanted
    own = asked.get(limit, model.bounds.options.get(limit))
    if own is None and (held := run.journal.output_bound(None)):
        # A budget's share must not be all of a small window.
        small = bool(model.bounds.context_tokens) and min(held, window.answer_reserve(model.bounds))
        asked[limit] = small or held
    return asked


def _with_tools(model: BuiltModel, tools: Sequence[BaseTool]) -> Any:
    if not tools:
        return model.chat
    try:
        return model.chat.bind_tools(tools)
    except NotImplementedError as error:
        raise Misconfigured(
            f"The model {model.alias!r} (provider {model.bounds.provider!r}) can't use tools; name another one."
        ) from error


def _size(sent: Mapping[str, Any]) -> int:
    """What descriptions of tools, or a schema, add to a request, in bytes."""
    return len(json.dumps(sent, default=repr).encode())


def _call(
    model: BuiltModel,
    messages: Sequence[BaseMessage],
    run: RunContext,
    prompt: PromptVersion | None,
    options: Mapping[str, Any],
    *,
    tool_bytes: int,
) -> Call:
    bounds, limit = model.bounds, model.provider.output_limit
    public = {name: value for name, value in options.items() if name in PUBLIC_OPTIONS or name == limit}
    return Call(
        number=run.next_call(),
        alias=model.alias,
        provider=bounds.provider,
        model=bounds.model,
        parameters=model.parameters | public,
        messages=[logged(message) for message in messages],
        prompt_id=None if prompt is None else prompt.id,
        price=run.configuration.price_of(bounds.provider, bounds.model),
        max_output_tokens=options.get(limit, bounds.options.get(limit)),
        tool_bytes=tool_bytes,
    )


class _Answer:
    """What came of one answer: its text and cleaning, its end, its times."""

    def __init__(self, watch: Watchdog, *, promised: bool, tools: bool) -> None:
        self._watch = watch
        self._promised = promised
        #: The parts of tool calls; None if no tool was offered.
        self._asks: list[AIMessageChunk] | None = [] if tools else None
        #: `{"id", "name", "args"}` each, when the answer has ended.
        self.tool_calls: tuple[dict[str, Any], ...] = ()
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
            self._watch.heard()
        if self._asks is not None and chunk.tool_call_chunks:
            self._asks.append(chunk)
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
        if self._asks:
            self.tool_calls = _tool_calls(self._asks)
        elif not self.began and self.finish_reason in ("tool_calls", "function_call"):
            raise ProviderBadResponse("The model asked for a tool that was not offered; try again.")
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


def _failure(error: BaseException, model: BuiltModel, answer: _Answer, watch: Watchdog) -> ChainError | None:
    """The typed failure behind an exception; None if all that matters had come before it.

    Raises the exception again if it is not the provider's doing: a stop, or the consumer's own.
    """
    failure: ChainError
    if watch.expired():
        failure = ProviderTimeout()
    elif not isinstance(error, Exception) or not watch.waiting:
        raise error
    elif isinstance(error, ChainError):
        return error
    else:
        failure = failures.context_exceeded(error) or model.provider.explain(error) or failures.explain(error)
        if answer.began and isinstance(failure, ProviderUnavailable):
            # Mid-answer the caller must know that the text is cut, whatever cut it.
            failure = ProviderTruncated()
    failure.__cause__ = error
    return None if answer.complete else failure


def _tool_calls(parts: list[AIMessageChunk]) -> tuple[dict[str, Any], ...]:
    """The calls that the parts come to. Raises ProviderBadResponse for arguments that are no JSON object."""
    whole: AIMessageChunk = functools.reduce(operator.add, parts)
    if whole.invalid_tool_calls:
        raise ProviderBadResponse("The model asked for a tool in a way that can't be read; try again.")
    return tuple({"id": one["id"], "name": one["name"], "args": one["args"]} for one in whole.tool_calls)


def logged(message: BaseMessage) -> dict[str, Any]:
    """A message as events and the log have it."""
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
