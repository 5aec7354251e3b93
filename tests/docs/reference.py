"""How docs/settings.md writes the keys of `DJANGO_CHAIN`: `python -m tests.docs.reference` prints the tables anew."""

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from kernel.conf import BudgetRule, Config, EmbeddingModel, ModelAlias, Route

#: Heading of docs/settings.md → its section of the setting.
SECTIONS: dict[str, type[Struct]] = {
    name.upper(): kind for name, kind in get_type_hints(Config).items() if isinstance(kind, type)
} | {"A model alias": ModelAlias, "A route": Route, "A budget rule": BudgetRule, "An embedding model": EmbeddingModel}


_NAMES: dict[Any, str] = {
    ModelAlias: "model alias",
    Route: "route",
    BudgetRule: "budget rule",
    EmbeddingModel: "embedding model",
}


def keys(section: type[Struct]) -> Iterator[tuple[str, str, str]]:
    """Key, type and default of each field, as the page writes them."""
    hints = get_type_hints(section, include_extras=True)
    for field in msgspec.structs.fields(section):
        yield field.encode_name, type_of(hints[field.name]), default_of(field)


def type_of(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        kind, *metas = get_args(hint)
        return type_of(kind) + "".join(_bounds(meta) for meta in metas)
    if get_origin(hint) is Literal:
        return " or ".join(f'"{value}"' for value in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(type_of(part) for part in get_args(hint))
    if get_origin(hint) is not None:
        return f"{get_origin(hint).__name__} of {type_of(get_args(hint)[-1])}"
    if hint in _NAMES:
        return _NAMES[hint]
    return {type(None): "None", Any: "anything"}.get(hint) or str(hint.__name__)


def default_of(field: msgspec.structs.FieldInfo) -> str:
    default = field.default if field.default_factory is NODEFAULT else field.default_factory()
    return "required" if default is NODEFAULT else json.dumps(_plain(default)).replace("null", "None")


def _plain(value: Any) -> Any:
    """A section inside a default with the keys that differ from its own defaults."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, Struct):
        fields = msgspec.structs.fields(value)
        given = {field.encode_name: getattr(value, field.name) for field in fields}
        return {name: inner for name, inner in given.items() if inner not in ({}, _defaults(value).get(name))}
    return value


def _defaults(section: Struct) -> dict[str, Any]:
    return {field.encode_name: field.default for field in msgspec.structs.fields(section)}


def _bounds(meta: Meta) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return "".join(f" {sign} {value}" for name, sign in signs.items() if (value := getattr(meta, name)) is not None)


if __name__ == "__main__":
    for heading, section in SECTIONS.items():
        print(f"\n## {heading}\n\n| key | type | default | meaning |\n|---|---|---|---|")
        for key, kind, default in keys(section):
            print(f"| `{key}` | {kind} | `{default}` | |")
