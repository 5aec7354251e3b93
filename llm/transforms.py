"""The built-in functions of the `transform` step. They take and give plain JSON, and raise ValueError or TypeError."""

import json
from typing import Any, NoReturn

from kernel.errors import TooLarge
from llm import templates
from llm.values import MAX_CHARS, as_text


def join(values: list[Any], separator: str = "\n") -> str:
    """The items as one text; an item that is none, as JSON."""
    pieces = [as_text(value) for value in _list(values)]
    if sum(map(len, pieces)) + len(separator) * len(pieces) > MAX_CHARS:
        raise TooLarge(f"A step made a value of more than {MAX_CHARS} characters.")
    return separator.join(pieces)


def pick(value: Any, key: str | int) -> Any:
    """The item of an object or a list."""
    if isinstance(value, dict) and isinstance(key, str):
        return value[key]
    if isinstance(key, str | bool):
        raise TypeError("a list has numbers as keys")
    return _list(value)[key]


def first(values: list[Any]) -> Any:
    """The first item of a list that has some."""
    return _list(values)[0]


def length(value: Any) -> int:
    """Of a text, a list or an object."""
    return len(value)


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def from_json(text: str) -> Any:
    return json.loads(text, parse_constant=no_constant)


def template(template: str, **values: Any) -> str:
    """The text with its plain names filled in; see docs/prompts.md."""
    return templates.parse(template).render(values)


def no_constant(name: str) -> NoReturn:
    """For json.loads: Python takes NaN and Infinity for numbers, and JSON has neither."""
    raise ValueError(f"{name} is no JSON")


def _list(values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise TypeError("a list is needed")
    return values
