"""What templates are filled in with: plain JSON data, and only so much of it.

A value may come from a caller, a model or a step of somebody's own. Before a template sees it, it is reduced to texts,
numbers, booleans, lists and dicts of the built-in types: then no code of an object can run, and there is nothing to
reach into. Sections of a template can multiply, so a rendering has a bound on its steps and on its length.
"""

import json
from typing import Any

#: What one rendering may make, in bytes of UTF-8, and take, in steps: about 50 ms of a slow core.
MAX_BYTES = 1_000_000
MAX_STEPS = 20_000
_MAX_DEPTH = 20
_MAX_BITS = 4096


class Work:
    """What is left for one rendering. Raises ValueError when it is used up."""

    __slots__ = ("_bytes", "_steps", "_texts")

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._steps = MAX_STEPS
        self._bytes = MAX_BYTES

    def step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise ValueError(f"filling it in takes more than {MAX_STEPS} steps; its lists are too long")

    def text_of(self, value: Any) -> str:
        """As `text_of`, once for each object: a section may ask for the same one a thousand times."""
        if isinstance(value, str):
            return value
        if not isinstance(value, list | dict):
            return text_of(value)
        if id(value) not in self._texts:
            self._texts[id(value)] = text_of(value)
        return self._texts[id(value)]

    def made(self, text: str) -> str:
        """Count a piece of the result."""
        self._bytes -= len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if self._bytes < 0:
            raise ValueError(f"it is filled in to more than {MAX_BYTES} bytes")
        return text


def plain(name: str, value: Any, work: Work) -> Any:
    """`value` as plain JSON data. Raises ValueError that names the variable whose value is something else."""
    if value is not None and not isinstance(value, str | bool | int | float | list | tuple | dict):
        raise ValueError(f"the variable {name!r} is a {type(value).__name__}, which a prompt can't hold")
    room = [MAX_BYTES]
    try:
        return _plain(value, work, room, 0)
    except _TooMuch as error:
        raise ValueError(f"the variable {name!r} {error}") from error


def text_of(value: Any) -> str:
    """A plain value as text: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _TooMuch(Exception):
    """Ends the walk; never leaves this module."""


def _plain(value: Any, work: Work, room: list[int], depth: int) -> Any:
    # A subclass may have methods of its own; those of the built-in type are asked instead.
    work.step()
    if depth > _MAX_DEPTH:
        raise _TooMuch(f"is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, list | tuple):
        items = list.__iter__(value) if isinstance(value, list) else tuple.__iter__(value)
        return [_plain(item, work, room, depth + 1) for item in items]
    if isinstance(value, dict):
        pairs = dict.items(value)
        return {text_of(_scalar(key, room)): _plain(item, work, room, depth + 1) for key, item in pairs}
    return _scalar(value, room)


def _scalar(value: Any, room: list[int]) -> str | int | float | bool | None:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        room[0] -= str.__len__(value)
        if room[0] < 0:
            raise _TooMuch(f"has more than {MAX_BYTES} characters")
        return str.__str__(value)
    if isinstance(value, int):
        if int.bit_length(value) > _MAX_BITS:
            raise _TooMuch("is a number of too many digits")
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return f"<{type(value).__name__}>"
