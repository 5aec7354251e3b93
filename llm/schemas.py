"""JSON schemas out of the database: nothing is fetched for them, and what they cost is bounded before they are used."""

from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from kernel.errors import TooLarge
from llm import patterns

#: Places of a schema that a value may be held against, references followed.
MAX_COST = 50_000
#: What one check may take: the keywords that hold at one place of a value, at most, times the value's places. It is
#: done in Rust in one go, during which this process does nothing else: 100 ms of a slow core.
MAX_WORK = 200_000
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=1 << 18, dfa_size_limit=1 << 18)
#: Of the schemas beneath these a place of a value meets one; of all others it may meet each.
_NAMED = ("properties", "prefixItems")
_ASIDE = ("$defs", "definitions")


@dataclass(frozen=True, slots=True)
class Validator:
    """A schema that values can be held against."""

    #: Keywords that may hold at one place of a value.
    width: int
    built: Any

    def validate(self, value: Any) -> None:
        """Raises jsonschema_rs.ValidationError, or TooLarge for a value that would take too long."""
        if self.width * _places(value) > MAX_WORK:
            raise TooLarge("The answer is too large for a JSON schema as large as that of this step.")
        self.built.validate(value)


def validator(schema: Any) -> Validator:
    """Raises ValueError: no schema, one that asks for another document, or too costly."""
    if not isinstance(schema, dict | bool):
        raise ValueError("a JSON schema is an object")  # noqa: TRY004  it is bad data
    if _Cost(schema).of(schema) > MAX_COST:
        raise ValueError("the JSON schema's references multiply each other; make it simpler")
    patterns.count(_patterns(schema))
    try:
        # A regex engine without backtracking; without it a pattern of a few characters could take hours.
        built = jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise ValueError(f"it is no JSON schema that is known here: {error.message[:200]}") from error
    except (ValueError, TypeError) as error:
        raise ValueError("it is no JSON schema that is known here") from error
    return Validator(_Width(schema).of(schema), built)


def _places(value: Any) -> int:
    places, level = 0, [value]
    while level:
        places += len(level)
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return places


def _patterns(part: Any) -> int:
    """Regular expressions in it; a property that is called so counts too."""
    if isinstance(part, list):
        return sum(map(_patterns, part))
    if not isinstance(part, dict):
        return 0
    named = part.get("patternProperties")
    own = int("pattern" in part) + (len(named) if isinstance(named, dict) else 0)
    return own + sum(map(_patterns, part.values()))


class _Cost:
    """References that meet no value in between multiply: thirty of them, each named twice, are a thousand million."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[str, int] = {}

    def of(self, part: Any) -> int:
        if isinstance(part, list):
            return self._sum(part)
        if not isinstance(part, dict):
            return 1
        cost = 1 + self._inner(part)
        reference = part.get("$ref", part.get("$dynamicRef"))
        return cost + self._behind(reference) if isinstance(reference, str) else cost

    def _inner(self, part: dict[str, Any]) -> int:
        return self._sum([inner for name, inner in part.items() if name not in _ASIDE])

    def _sum(self, parts: list[Any]) -> int:
        total = 0
        for part in parts:
            total += self.of(part)
            if total > MAX_COST:
                break
        return total

    def _behind(self, reference: str) -> int:
        if reference not in self._known:
            self._known[reference] = 1  # a reference to what it stands in goes on with a smaller value
            self._known[reference] = min(self.of(self._target(reference)), MAX_COST + 1)
        return self._known[reference]

    def _target(self, reference: str) -> Any:
        place = self._root
        for part in reference.removeprefix("#").strip("/").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(place, dict):
                place = place.get(name, place if not name else None)
            elif isinstance(place, list) and name.isdecimal() and int(name) < len(place):
                place = place[int(name)]
            else:
                return None
        return place


class _Width(_Cost):
    """As _Cost, but of the properties of an object only the widest counts: no value meets more than one of them."""

    def _inner(self, part: dict[str, Any]) -> int:
        beside = [inner for name, inner in part.items() if name not in (*_NAMED, *_ASIDE)]
        named = [part[name] for name in _NAMED if name in part]
        return self._sum(beside) + sum(max(map(self.of, _parts(one)), default=0) for one in named)


def _parts(named: Any) -> list[Any]:
    return list(named.values()) if isinstance(named, dict) else named if isinstance(named, list) else []
