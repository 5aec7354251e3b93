"""The built-in kinds of memory: which rows are asked for, and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kernel.conf import config as settings
from llm.tokens import TokenCounter, counter_of
from memory import options, recall
from memory.messages import order_of
from memory.options import RecallOptions, SummaryBufferOptions, SummaryOptions, TokenWindowOptions
from memory.protocol import Store
from memory.recall import Occasion
from memory.windows import buffer, newest_within, window

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


@dataclass(frozen=True)
class Buffer:
    """The whole conversation, up to MEMORY.MAX_MESSAGES: no prompt grows without end."""

    limit: int

    async def recall(self, store: Store, *, question: str, before_order: int) -> list[BaseMessage]:
        # One more than is kept: so that a longer conversation is told from one that just fits.
        return buffer(await store.aget_messages(limit=self.limit + 1, before_order=before_order), limit=self.limit)


@dataclass(frozen=True)
class BufferWindow:
    """The last messages."""

    limit: int

    async def recall(self, store: Store, *, question: str, before_order: int) -> list[BaseMessage]:
        return window(await store.aget_messages(limit=self.limit, before_order=before_order), limit=self.limit)


#: No message takes fewer: what stands around it counts, too.
_LEAST = 9


@dataclass(frozen=True)
class TokenWindow:
    """The newest messages that have so many tokens together."""

    max_tokens: int
    counter: TokenCounter

    async def recall(self, store: Store, *, question: str, before_order: int) -> list[BaseMessage]:
        most = min(self.max_tokens // _LEAST, settings().memory.max_messages)
        messages = await store.aget_messages(limit=most, before_order=before_order)
        return newest_within(messages, self.max_tokens, self.counter.message)


@dataclass(frozen=True)
class Summary:
    """A summary of what was said, and the messages after it; without a summary the newest messages."""

    options: SummaryOptions
    occasion: Occasion | None = None

    def at(self, occasion: Occasion) -> Summary:
        return replace(self, occasion=occasion)

    async def recall(self, store: Store, *, question: str, before_order: int) -> list[BaseMessage]:
        # Those that wait for the next summary, and as many again: a worker may be late.
        most = min(self.options.tail + 2 * self.options.every, settings().memory.max_messages)
        messages = await store.aget_messages(limit=most, before_order=before_order)
        note, messages = await _after_summary(self.occasion, messages)
        return [*note, *window(messages, limit=most)]


@dataclass(frozen=True)
class SummaryBuffer:
    """The newest messages that have so many tokens together, and a summary of those before them."""

    options: SummaryBufferOptions
    max_tokens: int
    counter: TokenCounter
    occasion: Occasion | None = None

    def at(self, occasion: Occasion) -> SummaryBuffer:
        return replace(self, occasion=occasion)

    async def recall(self, store: Store, *, question: str, before_order: int) -> list[BaseMessage]:
        most = min(self.max_tokens // _LEAST, settings().memory.max_messages)
        messages = await store.aget_messages(limit=most, before_order=before_order)
        note, messages = await _after_summary(self.occasion, messages)
        return [*note, *newest_within(messages, self.max_tokens, self.counter.message)]


@dataclass(frozen=True)
class Recall:
    """The newest messages, and older ones that are about the question."""

    options: RecallOptions
    tail: int
    counter: TokenCounter
    occasion: Occasion | None = None

    def at(self, occasion: Occasion) -> Recall:
        return replace(self, occasion=occasion)

    async def recall(self, store: Store, *, question: str, before_order: int) -> list[BaseMessage]:
        messages = await store.aget_messages(limit=self.tail, before_order=before_order)
        newest = window(messages, limit=self.tail)
        if self.occasion is None:
            return newest
        below = order_of(newest[0]) if newest else before_order
        near = await recall.near_at(self.occasion, question, self.options, below=below)
        found = recall.fitting(near, self.options.max_tokens, self.counter.text)
        return [recall.recalled_note(found), *newest] if found else newest


async def _after_summary(
    occasion: Occasion | None, messages: Sequence[BaseMessage]
) -> tuple[list[BaseMessage], list[BaseMessage]]:
    """The note of the newest summary, and the messages that it doesn't cover."""
    held = await recall.summary_at(occasion) if occasion is not None else None
    if held is None:
        return [], list(messages)
    return [recall.summary_note(held.text)], [each for each in messages if order_of(each) > held.through_order]


def create_buffer(config: dict[str, Any]) -> Buffer:
    return Buffer(limit=settings().memory.max_messages)


def create_buffer_window(config: dict[str, Any]) -> BufferWindow:
    """`k` (or `window`): how many messages; MEMORY.WINDOW without it."""
    asked = config.get("k") or config.get("window") or settings().memory.window
    return BufferWindow(limit=min(asked, settings().memory.max_messages))


def create_token_window(config: dict[str, Any]) -> TokenWindow:
    """Takes TokenWindowOptions; MEMORY.TOKENS without `max_tokens`. Raises ValueError that names the option."""
    given = options.read(TokenWindowOptions, config)
    return TokenWindow(given.max_tokens or settings().memory.tokens, counter_of(given.model))


def create_summary(config: dict[str, Any]) -> Summary:
    """Takes SummaryOptions. Raises ValueError that names the option."""
    return Summary(options.read(SummaryOptions, config))


def create_summary_buffer(config: dict[str, Any]) -> SummaryBuffer:
    """Takes SummaryBufferOptions; MEMORY.TOKENS without `max_tokens`. Raises ValueError that names the option."""
    given = options.read(SummaryBufferOptions, config)
    return SummaryBuffer(given, given.max_tokens or settings().memory.tokens, counter_of(given.model))


def create_recall(config: dict[str, Any]) -> Recall:
    """Takes RecallOptions; MEMORY.WINDOW without `tail`. Raises ValueError that names the option."""
    given = options.read(RecallOptions, config)
    tail = settings().memory.window if given.tail is None else given.tail
    return Recall(given, min(tail, settings().memory.max_messages), counter_of(given.model))
