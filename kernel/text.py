"""Text that PostgreSQL and UTF-8 accept: no NUL, no lone surrogates."""

import re
from typing import Any

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def _joined(match: re.Match[str]) -> str:
    return match.group().encode("utf-16", "surrogatepass").decode("utf-16")


def storable(text: str) -> str:
    """`text` with surrogate pairs joined, and NUL and lone surrogates replaced by U+FFFD."""
    if not _UNSTORABLE.search(text):
        return text
    return _UNSTORABLE.sub("\ufffd", _PAIR.sub(_joined, text))


def storable_values(value: Any) -> Any:
    """`storable` for all texts of a JSON value, also for names."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable_values(name): storable_values(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [storable_values(one) for one in value]
    return value


class StorableStream:
    """`storable` for a text that comes in pieces: a pair cut between two pieces is still joined."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        piece = self._held + piece
        self._held = ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._held = piece[:-1], piece[-1]
        return storable(piece)

    def close(self) -> str:
        """What is still held: a high surrogate whose partner never came."""
        held, self._held = self._held, ""
        return storable(held)
