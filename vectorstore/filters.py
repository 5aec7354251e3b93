"""Filters of a search: a small closed grammar over a document's metadata, typed, with one meaning in SQL and in Python.

    {"and": [{"eq": {"lang": "en"}}, {"range": {"year": {"gte": 2020}}}, {"not": {"in": {"status": ["draft"]}}}]}

Every condition is true or false, never unknown: a field that is missing, or holds another type, doesn't match, and
`not` turns that round. Numbers compare as numbers (1 is 1.0), ISO dates as moments (without a zone: UTC), text by its
letters.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Protocol

from kernel.errors import Invalid
from kernel.text import storable

Value = str | bool | int | float
#: SQL with placeholders, and what they stand for. It speaks of ChunkLookup as `l` and of Document as `d`.
Sql = tuple[str, list[Any]]

MAX_DEPTH: Final = 8
MAX_CONDITIONS: Final = 50
MAX_VALUES: Final = 100
MAX_TEXT: Final = 1000
MAX_NAME: Final = 200
_LARGEST = 10**100
_OPERATORS = ("eq", "in", "range", "contains", "and", "or", "not")
_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "gte": lambda left, right: left >= right,
    "gt": lambda left, right: left > right,
    "lte": lambda left, right: left <= right,
    "lt": lambda left, right: left < right,
}
_SIGNS = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}
_DOCUMENT_FIELDS = {"source": "d.source", "title": "d.title"}

# The same pattern in PostgreSQL and in Python: what it lets through is a date for both, so that no text in anybody's
# metadata makes a cast fail.
_LEAP = "(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[13579][26]|[2468][048])00)"
_DAY = (
    "(?:[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?"
_ZONE = "(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
_MOMENT = f"{_DAY}(?:[T ]{_TIME}{_ZONE}?)?"


class Filter(Protocol):
    """One of Eq, In, Range, Contains, And, Or and Not."""

    def matches(self, metadata: Mapping[str, Any], *, source: str = "", title: str = "") -> bool:
        """Whether a chunk with this metadata, of such a document, is wanted."""

    def sql(self) -> Sql:
        """The same as a condition in SQL."""


@dataclass(frozen=True)
class Field:
    """A place in the metadata, or with `of_document` a column of the document."""

    path: tuple[str, ...]
    of_document: bool = False

    def of(self, metadata: Mapping[str, Any], source: str, title: str) -> Any:
        if self.of_document:
            return {"source": source, "title": title}[self.path[0]]
        found: Any = metadata
        for name in self.path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    def holding(self, value: Any) -> str:
        """JSON that only metadata with this value at this place contains."""
        for name in reversed(self.path):
            value = {name: value}
        return json.dumps(value)

    def sql(self) -> Sql:
        """The value as jsonb. `->` by name doesn't count into lists, as `#>` would."""
        return f"(l.metadata{' -> %s::text' * len(self.path)})", list(self.path)

    @property
    def column(self) -> str:
        return _DOCUMENT_FIELDS[self.path[0]]


@dataclass(frozen=True)
class Eq:
    field: Field
    value: Value

    def matches(self, metadata: Mapping[str, Any], *, source: str = "", title: str = "") -> bool:
        return _same(self.field.of(metadata, source, title), self.value)

    def sql(self) -> Sql:
        if self.field.of_document:
            return f"({self.field.column} = %s)", [_text_or_nothing(self.value)]
        return "(l.metadata @> %s::jsonb)", [self.field.holding(self.value)]


@dataclass(frozen=True)
class In:
    field: Field
    values: tuple[Value, ...]

    def matches(self, metadata: Mapping[str, Any], *, source: str = "", title: str = "") -> bool:
        found = self.field.of(metadata, source, title)
        return any(_same(found, value) for value in self.values)

    def sql(self) -> Sql:
        if self.field.of_document:
            return f"({self.field.column} = ANY(%s::text[]))", [[_text_or_nothing(value) for value in self.values]]
        return "(l.metadata @> ANY(%s::jsonb[]))", [[self.field.holding(value) for value in self.values]]


@dataclass(frozen=True)
class Range:
    """`bounds`: an operator (gte, gt, lte, lt) with a number, or with a moment."""

    field: Field
    bounds: tuple[tuple[str, Decimal | datetime], ...]

    @property
    def of_moments(self) -> bool:
        return isinstance(self.bounds[0][1], datetime)

    def matches(self, metadata: Mapping[str, Any], *, source: str = "", title: str = "") -> bool:
        found = self.field.of(metadata, source, title)
        value = moment(found) if self.of_moments else _number(found)
        return value is not None and all(_BOUNDS[name](value, bound) for name, bound in self.bounds)

    def sql(self) -> Sql:
        place, path = self.field.sql()
        signs, values = [_SIGNS[name] for name, _ in self.bounds], [value for _, value in self.bounds]
        if not self.of_moments:
            tests = " AND ".join(f"({place})::numeric {sign} %s" for sign in signs)
            found = f"(CASE WHEN jsonb_typeof({place}) = 'number' THEN {tests} ELSE false END)"
            return found, path + [each for value in values for each in (*path, value)]
        text = f"({place} #>> '{{}}')"
        cast = f"({text} || CASE WHEN {text} ~ %s THEN '' ELSE ' UTC' END)::timestamptz"
        tests = " AND ".join(f"{cast} {sign} %s" for sign in signs)
        found = f"(CASE WHEN jsonb_typeof({place}) = 'string' AND {text} ~ %s THEN {tests} ELSE false END)"
        each_test = [each for value in values for each in (*path, *path, f"{_ZONE}$", value)]
        return found, [*path, *path, f"^{_MOMENT}$", *each_test]


@dataclass(frozen=True)
class Contains:
    """A list that holds the value, or a text that holds the text."""

    field: Field
    value: Value

    def matches(self, metadata: Mapping[str, Any], *, source: str = "", title: str = "") -> bool:
        found = self.field.of(metadata, source, title)
        if isinstance(found, list | tuple):
            return any(_same(each, self.value) for each in found)
        return isinstance(found, str) and isinstance(self.value, str) and self.value in found

    def sql(self) -> Sql:
        if self.field.of_document:
            return f"(strpos({self.field.column}, %s) > 0)", [_text_or_nothing(self.value)]
        if not isinstance(self.value, str):
            return "(l.metadata @> %s::jsonb)", [self.field.holding([self.value])]
        place, path = self.field.sql()
        found = (
            f"(CASE jsonb_typeof({place}) WHEN 'array' THEN {place} @> %s::jsonb"
            f" WHEN 'string' THEN strpos({place} #>> '{{}}', %s) > 0 ELSE false END)"
        )
        return found, [*path, *path, json.dumps([self.value]), *path, self.value]


@dataclass(frozen=True)
class And:
    parts: tuple[Filter, ...]

    def matches(self, metadata: Mapping[str, Any], *, source: str = "", title: str = "") -> bool:
        return all(part.matches(metadata, source=source, title=title) for part in self.parts)

    def sql(self) -> Sql:
        return _joined(" AND ", self.parts)


@dataclass(frozen=True)
class Or:
    parts: tuple[Filter, ...]

    def matches(self, metadata: Mapping[str, Any], *, source: str = "", title: str = "") -> bool:
        return any(part.matches(metadata, source=source, title=title) for part in self.parts)

    def sql(self) -> Sql:
        return _joined(" OR ", self.parts)


@dataclass(frozen=True)
class Not:
    part: Filter

    def matches(self, metadata: Mapping[str, Any], *, source: str = "", title: str = "") -> bool:
        return not self.part.matches(metadata, source=source, title=title)

    def sql(self) -> Sql:
        found, values = self.part.sql()
        return f"(NOT {found})", values


def parse(raw: object) -> Filter:
    """The filter that this JSON says. Raises Invalid that names the wrong part and what is allowed there."""
    return _Parser().filter(raw, depth=1)


def moment(value: object) -> datetime | None:
    """What an ISO date, or a date with a time, says; without a zone it is UTC. None: it is none."""
    if not isinstance(value, str) or not re.fullmatch(_MOMENT, value):
        return None
    found = datetime.fromisoformat(value)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class _Parser:
    def __init__(self) -> None:
        self._conditions = 0

    def filter(self, raw: object, *, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise Invalid(f"A filter is at most {MAX_DEPTH} levels deep.")
        name, content = _only(raw, f"A filter is an object with one of {', '.join(_OPERATORS)}")
        if name in ("and", "or"):
            if not isinstance(content, list | tuple) or not content:
                raise Invalid(f"{name!r} takes a list of filters, at least one.")
            parts = tuple(self.filter(part, depth=depth + 1) for part in content)
            return And(parts) if name == "and" else Or(parts)
        if name == "not":
            return Not(self.filter(content, depth=depth + 1))
        if name not in _OPERATORS:
            raise Invalid(f"There is no filter {name[:MAX_NAME]!r}; there are {', '.join(_OPERATORS)}.")
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise Invalid(f"A filter has at most {MAX_CONDITIONS} conditions.")
        field, value = _only(content, f"{name!r} takes an object with one field, such as {{{name!r}: {{'year': …}}}}")
        return _condition(name, _field(field), value)


def _condition(name: str, field: Field, value: object) -> Filter:
    if name == "eq":
        return Eq(field, _value(value, "'eq'"))
    if name == "contains":
        if value == "":
            raise Invalid("'contains' needs a text of at least one character.")
        return Contains(field, _value(value, "'contains'"))
    if name == "in":
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_VALUES:
            raise Invalid(f"'in' takes a list of 1 to {MAX_VALUES} values.")
        return In(field, tuple(_value(each, "'in'") for each in value))
    return _range(field, value)


def _range(field: Field, raw: object) -> Range:
    if field.of_document:
        raise Invalid("'range' is for metadata; document.source and document.title have eq, in and contains.")
    if not isinstance(raw, Mapping) or not raw or not set(raw) <= set(_BOUNDS):
        raise Invalid(f"'range' takes an object with {', '.join(_BOUNDS)}, at least one.")
    bounds = tuple((name, _bound(_value(value, "'range'"))) for name, value in raw.items())
    if len({type(bound) for _, bound in bounds}) > 1:
        raise Invalid("The bounds of a 'range' are all numbers or all ISO dates.")
    return Range(field, bounds)


def _bound(value: Value) -> Decimal | datetime:
    found = moment(value) or _number(value)
    if found is None:
        raise Invalid(f"A bound of 'range' is a number or an ISO date such as '2026-01-31', not {str(value)[:60]!r}.")
    return found


def _field(name: str) -> Field:
    path = tuple(name.split("."))
    if len(name) > MAX_NAME or len(path) > MAX_DEPTH or not all(path) or storable(name) != name:
        raise Invalid(f"{name[:60]!r} is no field: names of metadata, dots for inner ones, {MAX_NAME} characters.")
    if path[0] != "document":
        return Field(path)
    if len(path) != 2 or path[1] not in _DOCUMENT_FIELDS:
        raise Invalid(f"Of a document there are {', '.join(f'document.{each}' for each in _DOCUMENT_FIELDS)}.")
    return Field(path[1:], of_document=True)


def _value(raw: object, where: str) -> Value:
    if isinstance(raw, str) and len(raw) <= MAX_TEXT and storable(raw) == raw:
        return raw
    # Not a number, and infinity, compare with nothing.
    if isinstance(raw, bool) or (isinstance(raw, int | float) and -_LARGEST < raw < _LARGEST):
        return raw
    raise Invalid(f"A value of {where} is a text (up to {MAX_TEXT} characters), a number, true or false.")


def _only(raw: object, otherwise: str) -> tuple[str, Any]:
    """The one entry of an object."""
    if not isinstance(raw, Mapping) or len(raw) != 1:
        raise Invalid(f"{otherwise}.")
    name, content = next(iter(raw.items()))
    if not isinstance(name, str):
        raise Invalid(f"{otherwise}.")
    return name, content


def _number(value: object) -> Decimal | None:
    """As PostgreSQL reads it out of JSON: its digits, not the nearest binary fraction."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Decimal(str(value))


def _same(found: object, value: Value) -> bool:
    if isinstance(found, bool) or isinstance(value, bool):
        return found is value
    if isinstance(value, str):
        return isinstance(found, str) and found == value
    return _number(found) == _number(value)


def _text_or_nothing(value: Value) -> str | None:
    """A document's own fields are texts: nothing else equals them."""
    return value if isinstance(value, str) else None


def _joined(word: str, parts: Sequence[Filter]) -> Sql:
    made = [part.sql() for part in parts]
    return f"({word.join(text for text, _ in made)})", [value for _, values in made for value in values]
