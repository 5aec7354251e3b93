"""Token counts. What a provider doesn't count we estimate: a row of the log never says 0 for "unknown"."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

CHARS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 3


class Usage(NamedTuple):
    input_tokens: int
    output_tokens: int
    estimated: bool


#: Of a call that was never made.
NO_USAGE = Usage(0, 0, estimated=True)


def estimate(messages: Iterable[Mapping[str, Any]], answer: str | int) -> Usage:
    """An approximate count for a call that ended without the provider's own: stopped, failed, or not told.

    `messages` are those of `ModelStarted`; `answer` is the text so far, or its length in characters.
    """
    asked = sum(_tokens(len(str(message["content"]))) + TOKENS_PER_MESSAGE for message in messages)
    return Usage(asked, _tokens(answer if isinstance(answer, int) else len(answer)), estimated=True)


def _tokens(chars: int) -> int:
    return -(-chars // CHARS_PER_TOKEN)
