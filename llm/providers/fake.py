"""A model that costs nothing and always says the same: for tests, benchmarks and a first look without a key.

It streams natively, counts usage, asks for tools and fails on command; `answers`, `errors` and `delays` are a script
over several calls. Without a text it answers from the prompt: it cites the first passage if there is one, and else
repeats the question.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_validator
from typing_extensions import override

from kernel.errors import Misconfigured
from llm import errors, usage
from llm.errors import ProviderError
from llm.providers.base import ChatProvider, ProviderConfig, check_options, wrong_value

_FAILURES: dict[str, type[ProviderError]] = {
    failure.code: failure
    for failure in (
        errors.ProviderMisconfigured,
        errors.ProviderRefused,
        errors.ProviderContextExceeded,
        errors.ProviderRateLimited,
        errors.ProviderUnavailable,
        errors.ProviderTimeout,
        errors.ProviderTruncated,
        errors.ProviderBadResponse,
    )
}
#: Tokens after which the event loop gets a turn when nothing else makes us wait, as a socket's next read would.
_TOKENS_PER_READ = 16


class FakeToolCall(BaseModel):
    """A tool that the model asks for, if it was offered."""

    model_config = ConfigDict(extra="forbid")

    name: str
    args: dict[str, Any] = Field(default_factory=dict)
    id: str = "call_1"


class FakeAnswer(BaseModel):
    """One answer of a script."""

    model_config = ConfigDict(extra="forbid")

    text: str = ""
    #: It is given to every question that contains this, and takes no turn; empty: when its turn comes.
    when: str = ""
    tool_calls: list[FakeToolCall] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Script:
    """What one call comes to."""

    words: list[str]
    tool_calls: list[FakeToolCall]
    finish_reason: str | None
    error: str
    delay: float


class FakeChatModel(BaseChatModel):
    """The scripted model. Tokens are words with the space after them. All times are in seconds.

    Calls are counted for each object: an alias has one in each process, until its settings change.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = "fake"
    #: What it answers; None: something about the prompt.
    text: str | None = None
    #: Answers that are given one after the other, the last one from then on; or by what is asked (`FakeAnswer.when`).
    answers: list[FakeAnswer] = Field(default_factory=list)
    #: Tools that it asks for instead of an answer, as long as the last message is no tool's result.
    tool_calls: list[FakeToolCall] = Field(default_factory=list)
    #: For each call a code as in `error` ("": none), and seconds before its first token; further calls are as `error`
    #: and `first_token_delay` say.
    errors: list[str] = Field(default_factory=list)
    delays: list[float] = Field(default_factory=list)
    #: The answer is said so many times, and then cut or repeated to `tokens` tokens if given.
    repeat: int = 1
    tokens: int | None = None
    first_token_delay: float = 0.0
    delay: float = 0.0
    #: Another way to say `delay`.
    tokens_per_second: float | None = None
    #: A code of llm.errors ("provider_unavailable", …), raised after `error_after` tokens.
    error: str = ""
    error_after: int = 0
    #: False: no token count, as some servers send none.
    usage: bool = True
    #: Input tokens, of those that are counted, that the provider had in its own cache.
    cached_tokens: int = 0
    finish_reason: str | None = "stop"
    #: The options that every LangChain model takes; the first two do what they say.
    max_tokens: int | None = None
    stop: list[str] | None = None
    temperature: float | None = None
    timeout: float | None = None
    max_retries: int | None = None
    streaming: bool = True
    #: So that an alias can be switched to the fake by its provider's name alone.
    api_key: SecretStr | None = None
    base_url: str | None = None
    _calls: int = PrivateAttr(0)

    @field_validator("answers", mode="before")
    @classmethod
    def _texts_are_answers(cls, answers: Any) -> Any:
        return [{"text": one} if isinstance(one, str) else one for one in answers]

    @property
    def _llm_type(self) -> str:
        return "fake"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "text": self.text, "tokens": self.tokens}

    @override
    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        clock = asyncio.get_running_loop().time
        pause = 1 / self.tokens_per_second if self.tokens_per_second else self.delay
        script = self._script(messages, stop, kwargs)
        due = clock() + script.delay
        if script.delay:
            await asyncio.sleep(script.delay)
        for count, chunk in enumerate(self._chunks(messages, script), start=1):
            if pause:
                due += pause  # by the clock, so that a busy loop doesn't slow the rate down
                await asyncio.sleep(max(0.0, due - clock()))
            elif count % _TOKENS_PER_READ == 0:
                await asyncio.sleep(0)
            yield chunk

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield from self._chunks(messages, self._script(messages, stop, kwargs))

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        script = self._script(messages, stop, kwargs)
        if script.error:
            _fail(script.error)
        message = AIMessage(
            content="".join(script.words),
            tool_calls=[tool_call(name=one.name, args=one.args, id=one.id) for one in script.tool_calls],
            response_metadata={"model_name": self.model, "finish_reason": script.finish_reason},
            usage_metadata=self._count(messages, len(script.words)),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunks(self, messages: list[BaseMessage], script: _Script) -> Iterator[ChatGenerationChunk]:
        """The whole stream: words, tools, the finish reason, the usage."""
        for word in script.words[: self.error_after] if script.error else script.words:
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        if script.error:
            _fail(script.error)
        if script.tool_calls:
            parts = [
                tool_call_chunk(name=one.name, args=json.dumps(one.args), id=one.id, index=index)
                for index, one in enumerate(script.tool_calls, start=1 if script.words else 0)
            ]
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=parts))
        last = {
            "model_name": self.model,
            **({"finish_reason": script.finish_reason} if script.finish_reason else {}),
        }
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=last))
        if self.usage:
            usage_metadata = self._count(messages, len(script.words))
            yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=usage_metadata))

    def _script(self, messages: Sequence[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> _Script:
        """What this call comes to; it takes a turn."""
        turn, self._calls = self._calls, self._calls + 1
        offered = {str(tool.get("function", {}).get("name")) for tool in options.get("tools") or ()}
        told = bool(messages) and messages[-1].type == "tool"
        asks = [] if told else [one for one in self.tool_calls if one.name in offered]
        answer = FakeAnswer() if asks else self._answer(messages, turn)
        asks += [one for one in answer.tool_calls if one.name in offered]
        words, finish_reason = self._words(answer.text, stop, options.get("max_tokens"))
        return _Script(
            words=words,
            tool_calls=asks,
            finish_reason="tool_calls" if asks and finish_reason == "stop" else finish_reason,
            error=self.errors[turn] if turn < len(self.errors) else self.error,
            delay=self.delays[turn] if turn < len(self.delays) else self.first_token_delay,
        )

    def _answer(self, messages: Sequence[BaseMessage], turn: int) -> FakeAnswer:
        asked = messages[-1].text if messages else ""
        for answer in self.answers:
            if answer.when and answer.when in asked:
                return answer
        in_turn = [answer for answer in self.answers if not answer.when]
        if in_turn:
            return in_turn[min(turn, len(in_turn) - 1)]
        text = (self.text if self.text is not None else _about(messages)) * self.repeat
        return FakeAnswer(text=text)

    def _words(self, text: str, stop: list[str] | None, max_tokens: int | None) -> tuple[list[str], str | None]:
        """The tokens to say, and the finish reason."""
        for mark in stop or self.stop or ():
            text = text.partition(mark)[0]
        words = re.findall(r"\s*\S+\s?|\s+", text)
        if self.tokens is not None and words:
            words = (words * -(-self.tokens // len(words)))[: self.tokens]
        bound = self.max_tokens if max_tokens is None else max_tokens
        if bound is not None and len(words) > bound:
            return words[:bound], "length"
        return words, self.finish_reason

    def _count(self, messages: Sequence[BaseMessage], said: int) -> UsageMetadata | None:
        if not self.usage:
            return None
        asked = usage.estimate([{"content": message.text} for message in messages], 0).input_tokens
        asked = max(asked, self.cached_tokens)
        counted = UsageMetadata(input_tokens=asked, output_tokens=said, total_tokens=asked + said)
        if self.cached_tokens:
            counted["input_token_details"] = InputTokenDetails(cache_read=self.cached_tokens)
        return counted


def _fail(code: str) -> NoReturn:
    raise _FAILURES.get(code, errors.ProviderUnavailable)


def _about(messages: Sequence[BaseMessage]) -> str:
    asked = messages[-1].text if messages else ""
    passage = re.search(r"^(.+?[.!?])(?= ).*\[1\]$", asked, re.MULTILINE)
    if passage:
        return f"{passage[1]} [1]"
    return f"You said: {asked}"


def build(config: ProviderConfig) -> FakeChatModel:
    check_options(config, FakeChatModel)
    try:
        return FakeChatModel(**config)
    except ValueError as error:
        raise wrong_value(error, config) or Misconfigured("The options of the fake model are not valid.") from error


provider = ChatProvider(build, promises_finish_reason=True, needs_key=False)
