"""A model that costs nothing and always says the same: for tests, benchmarks and a first look without a key.

It streams natively, counts usage and fails on command. Without a `text` it answers from the prompt: it cites the first
passage if there is one, and else repeats the question.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NoReturn

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, SecretStr
from typing_extensions import override

from llm import errors, usage
from llm.errors import ProviderError
from llm.providers.base import ChatProvider, ProviderConfig, check_options

_FAILURES: dict[str, type[ProviderError]] = {
    failure.code: failure
    for failure in (
        errors.ProviderMisconfigured,
        errors.ProviderRefused,
        errors.ProviderRateLimited,
        errors.ProviderUnavailable,
        errors.ProviderTimeout,
        errors.ProviderTruncated,
        errors.ProviderBadResponse,
    )
}
#: Tokens after which the event loop gets a turn when nothing else makes us wait, as a socket's next read would.
_TOKENS_PER_READ = 16


class FakeChatModel(BaseChatModel):
    """The scripted model. Tokens are words with the space after them. All times are in seconds."""

    model_config = ConfigDict(extra="forbid")

    model: str = "fake"
    #: What it answers; None: something about the prompt.
    text: str | None = None
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

    @property
    def _llm_type(self) -> str:
        return "fake"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "text": self.text, "tokens": self.tokens}

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
        due = clock() + self.first_token_delay
        if self.first_token_delay:
            await asyncio.sleep(self.first_token_delay)
        for count, chunk in enumerate(self._chunks(messages, stop), start=1):
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
        yield from self._chunks(messages, stop)

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        words, finish_reason = self._script(messages, stop)
        if self.error:
            self._fail()
        message = AIMessage(
            content="".join(words),
            response_metadata={"model_name": self.model, "finish_reason": finish_reason},
            usage_metadata=self._count(messages, len(words)),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunks(self, messages: list[BaseMessage], stop: list[str] | None) -> Iterator[ChatGenerationChunk]:
        """The whole stream: words, the finish reason, the usage."""
        words, finish_reason = self._script(messages, stop)
        for word in words[: self.error_after] if self.error else words:
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        if self.error:
            self._fail()
        last = {"model_name": self.model, **({"finish_reason": finish_reason} if finish_reason else {})}
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=last))
        if self.usage:
            yield ChatGenerationChunk(
                message=AIMessageChunk(content="", usage_metadata=self._count(messages, len(words)))
            )

    def _script(self, messages: Sequence[BaseMessage], stop: list[str] | None) -> tuple[list[str], str | None]:
        """The tokens to say, and the finish reason."""
        text = (self.text if self.text is not None else _about(messages)) * self.repeat
        for mark in stop or self.stop or ():
            text = text.partition(mark)[0]
        words = re.findall(r"\s*\S+\s?|\s+", text)
        if self.tokens is not None and words:
            words = (words * -(-self.tokens // len(words)))[: self.tokens]
        if self.max_tokens is not None and len(words) > self.max_tokens:
            return words[: self.max_tokens], "length"
        return words, self.finish_reason

    def _count(self, messages: Sequence[BaseMessage], said: int) -> UsageMetadata | None:
        if not self.usage:
            return None
        asked = usage.estimate([{"content": message.text} for message in messages], 0).input_tokens
        return UsageMetadata(input_tokens=asked, output_tokens=said, total_tokens=asked + said)

    def _fail(self) -> NoReturn:
        raise _FAILURES.get(self.error, errors.ProviderUnavailable)


def _about(messages: Sequence[BaseMessage]) -> str:
    asked = messages[-1].text if messages else ""
    passage = re.search(r"^(.+?[.!?])(?= ).*\[1\]$", asked, re.MULTILINE)
    if passage:
        return f"{passage[1]} [1]"
    return f"You said: {asked}"


def build(config: ProviderConfig) -> FakeChatModel:
    check_options(config, FakeChatModel)
    return FakeChatModel(**config)


provider = ChatProvider(build, promises_finish_reason=True, needs_key=False)
