"""The built-in kinds of memory: which rows are asked for, and what is kept of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernel.conf import config as settings
from llm.tokens import TokenCounter, counter_of
from memory import options
from memory.options import TokenWindowOptions
from memory.protocol import Store
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
