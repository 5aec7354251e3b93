"""What a window keeps of a conversation: pure functions over the list, whatever the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import dropwhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


def buffer(messages: Sequence[BaseMessage], *, limit: int) -> list[BaseMessage]:
    """Everything from the first human turn on; of a conversation longer than `limit`, of its last `limit`.

    A conversation opens with an answer where its first question was deleted.
    """
    return window(messages, limit=limit)


def window(messages: Sequence[BaseMessage], *, limit: int) -> list[BaseMessage]:
    """The last `limit` messages, from the first human turn among them on.

    Chat templates of many models refuse a conversation that opens with an answer, so fewer may be kept.
    """
    kept = messages[-limit:] if limit > 0 else []
    return list(dropwhile(lambda each: each.type != "human", kept))


def newest_within(
    messages: Sequence[BaseMessage], max_tokens: int, count: Callable[[BaseMessage], int]
) -> list[BaseMessage]:
    """The newest messages that have no more than `max_tokens` together, from the first human turn among them on."""
    kept = 0
    for message in reversed(messages):
        max_tokens -= count(message)
        if max_tokens < 0:
            break
        kept += 1
    return window(messages, limit=kept)
