"""Filters in the words that Chroma and Pinecone share: `{"$and": [{"m.year": {"$gte": 2020.0}}, …]}`.

What is asked of a store lets through all that the filter wants, perhaps more, and never less: the filter is applied
again to what is found. So conditions that a store can't express are left out, and with them a `not` around them.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from vectorstore.filters import MAX_TEXT, And, Eq, Field, Filter, In, Or, Range, Value

#: Before each name of a document's metadata: stores reserve some names.
_PREFIX = "m."
#: Marks an entry whose metadata was too much for a store: every filter lets it through.
_PARTIAL = "partial"
#: Pinecone takes 40 kB a vector.
_LARGEST = 30_000
#: Up to here each whole number is a float of its own.
_EXACT = 2**53


def kept(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a store keeps with a vector: flat, texts, floats and booleans."""
    fields: dict[str, Any] = {_PREFIX + name: value for name, value in _flat(metadata)}
    if len(json.dumps(fields).encode()) > _LARGEST:
        return {_PARTIAL: True}
    # Chroma takes no empty ones.
    return fields or {_PARTIAL: False}


def condition(where: Filter | None) -> dict[str, Any] | None:
    """The filter as far as stores can express it; None: not at all."""
    found = None if where is None else _condition(where)
    return None if found is None else {"$or": [found, {_PARTIAL: {"$eq": True}}]}


def _flat(metadata: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str | float | bool]]:
    for name, value in metadata.items():
        # A filter's dots go into objects, so that a name with a dot is found by none.
        if not isinstance(name, str) or "." in name:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif isinstance(value, bool):
            yield above + name, value
        elif isinstance(value, int | float):
            yield above + name, _float(value)
        # A longer text equals no filter's value.
        elif isinstance(value, str) and len(value) <= MAX_TEXT:
            yield above + name, value


def _condition(where: Filter) -> dict[str, Any] | None:
    if isinstance(where, Eq):
        return _among(where.field, (where.value,))
    if isinstance(where, In):
        return _among(where.field, where.values)
    if isinstance(where, Range):
        return _range(where)
    if isinstance(where, And):
        return _joined("$and", [made for part in where.parts if (made := _condition(part)) is not None])
    if isinstance(where, Or):
        made_all = [_condition(part) for part in where.parts]
        return None if None in made_all else _joined("$or", made_all)
    return None


def _among(field: Field, values: tuple[Value, ...]) -> dict[str, Any] | None:
    if field.of_document:
        return None
    name = _name(field)
    texts = [value for value in values if isinstance(value, str)]
    numbers = [_float(value) for value in values if not isinstance(value, str | bool)]
    tests: list[dict[str, Any]] = [{name: {"$in": group}} for group in (texts, numbers) if group]
    tests += [{name: {"$eq": value}} for value in values if isinstance(value, bool)]
    return _joined("$or", tests)


def _range(where: Range) -> dict[str, Any] | None:
    """Of numbers; stores know no moments."""
    tests = [
        {_name(where.field): {_operator(name, bound): _float(bound)}}
        for name, bound in where.bounds
        if not isinstance(bound, datetime)
    ]
    return _joined("$and", tests)


def _operator(name: str, bound: Decimal) -> str:
    # Beyond, neighbours are one float: they count as inside.
    return f"${name}" if abs(bound) < _EXACT and Decimal(float(bound)) == bound else f"${name[:2]}e"


def _name(field: Field) -> str:
    return _PREFIX + ".".join(field.path)


def _float(value: float | Decimal) -> float:
    most = 1e300
    return float(max(-most, min(most, value)))


def _joined(word: str, parts: list[Any]) -> dict[str, Any] | None:
    if len(parts) < 2:
        found: dict[str, Any] | None = parts[0] if parts else None
        return found
    return {word: parts}
