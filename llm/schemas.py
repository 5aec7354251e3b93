"""JSON schemas out of the database: nothing is fetched for them, and what they cost is bounded before they are used."""

from typing import Any

import jsonschema_rs

#: Places of a schema that a value may be held against, references followed.
MAX_COST = 50_000
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)


def validator(schema: Any) -> Any:
    """An object with `validate`. Raises ValueError: no schema, one that asks for another document, or too costly."""
    if not isinstance(schema, dict | bool):
        raise ValueError("a JSON schema is an object")  # noqa: TRY004  it is bad data
    if _Cost(schema).of(schema) > MAX_COST:
        raise ValueError("the JSON schema's references multiply each other; make it simpler")
    try:
        # A regex engine without backtracking; without it a pattern of a few characters could take hours.
        return jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise ValueError(f"it is no JSON schema that is known here: {error.message[:200]}") from error
    except (ValueError, TypeError) as error:
        raise ValueError("it is no JSON schema that is known here") from error


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
        cost = 1 + self._sum([inner for name, inner in part.items() if name not in ("$defs", "definitions")])
        reference = part.get("$ref", part.get("$dynamicRef"))
        return cost + self._behind(reference) if isinstance(reference, str) else cost

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
