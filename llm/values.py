"""Reading and writing the values of a run by name: a closed grammar, and nothing of Python behind it.

    question · text · output · output.items[0].title · variables.tone · tone

A name that is none of the roots is a variable. What a step writes is plain JSON, within bounds, and can be stored.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator

from kernel.conf import config
from kernel.errors import TooLarge
from kernel.text import storable
from llm.errors import WorkflowInvalid
from llm.state import WorkflowState

#: What one value may hold, counted through all of it.
MAX_CHARS = 1_000_000
MAX_PARTS = 20_000
MAX_DEPTH = 64
_ROOTS = frozenset({"question", "text", "output", "passages"})
_PATH = re.compile(r"[A-Za-z]\w*(?:\.\w+|\[\d{1,4}\])*", re.ASCII)
_PART = re.compile(r"\w+", re.ASCII)


class _Missing:
    """There is no such value; `None` is one."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


def _path(text: str) -> str:
    if len(text) > 200 or not _PATH.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is no name of a value; write them as in 'question', 'output.title', 'list[0]'")
    return text


#: A path in a definition.
ValuePath: TypeAlias = Annotated[str, AfterValidator(_path)]


def find(state: WorkflowState, path: str) -> Any:
    """The value at `path`, or MISSING."""
    first, *rest = _PART.findall(path)
    value: Any = state.variables
    if first in _ROOTS:
        value = getattr(state, first)
    elif first != "variables":
        value = value.get(first, MISSING)
    for part in rest:
        if isinstance(value, Mapping):
            value = value.get(part, MISSING)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def read(state: WorkflowState, path: str) -> Any:
    """The value at `path`. Raises WorkflowInvalid that names the step and the path."""
    value = find(state, path)
    if value is MISSING:
        raise WorkflowInvalid(f"{state.path}: there is no value {path!r} when this step runs.")
    return value


def _argument(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"from"}:
        if not isinstance(value["from"], str):
            raise ValueError('\'from\' is the name of a value, as in {"from": "question"}')
        _path(value["from"])
    return value


#: A value as it stands, or `{"from": path}`.
Argument: TypeAlias = Annotated[Any, AfterValidator(_argument)]


def resolve(state: WorkflowState, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with their values. Raises WorkflowInvalid."""
    return {
        name: read(state, value["from"]) if isinstance(value, dict) and set(value) == {"from"} else value
        for name, value in arguments.items()
    }


def result(state: WorkflowState) -> Any:
    """What the steps so far come to: the last value that was made of the text, else the text."""
    return state.text if state.output is None else state.output


def plain(value: Any) -> Any:
    """A copy of `value` that is JSON, fit to be stored. Raises TooLarge, and ValueError for what is no JSON."""
    return _Copy().of(value, MAX_DEPTH)


def as_text(value: Any) -> str:
    """A value as people see it: text as it is, else JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _Copy:
    """Counts while it copies: a value that holds another one many times would grow without end."""

    def __init__(self) -> None:
        self._chars = self._parts = 0
        # Nothing that a model may say is too much to be passed on.
        self._most = max(MAX_CHARS, config().llm.max_answer_chars)

    def of(self, value: Any, depth: int) -> Any:
        self._parts += 1
        if self._parts > MAX_PARTS or depth < 0:
            raise TooLarge(f"A step made a value of more than {MAX_PARTS} parts, or one nested too deep.")
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self._text(str(name)): self.of(inner, depth - 1) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(inner, depth - 1) for inner in value]
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float) and value - value == 0:  # neither infinite nor NaN, which JSON hasn't
            return value
        raise ValueError(f"a {type(value).__name__} is no JSON value")

    def _text(self, text: str) -> str:
        self._chars += len(text)
        if self._chars > self._most:
            raise TooLarge(f"A step made a value of more than {self._most} characters.")
        return storable(text)
