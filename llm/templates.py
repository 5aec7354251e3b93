"""Prompt templates: text with plain names in braces, and nothing else.

Templates come from the database, so they are input: `{u.password}`, `{u[0]}`, `{u!r}`, `{u:>50000000}` and `{}` are
refused when the template is read. Braces in a value stay as they are.
"""

import json
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_CHARS = 100_000
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: literal text, and after each piece the name of a variable or "" at the end."""

    parts: tuple[tuple[str, str], ...]

    @property
    def variables(self) -> frozenset[str]:
        return frozenset(name for _, name in self.parts if name)

    def render(self, values: Mapping[str, Any]) -> str:
        """The text. Raises ValueError that names the variable without a value, or with one that can't be text."""
        return "".join(literal + (_text(name, values) if name else "") for literal, name in self.parts)


def parse(source: str) -> Template:
    """Raises ValueError that names the fault."""
    if len(source) > MAX_CHARS:
        raise ValueError(f"a template may have {MAX_CHARS} characters, this one has {len(source)}")
    try:
        fields = list(string.Formatter().parse(source))
    except ValueError as error:
        raise ValueError(f"braces don't match ({error}); write {{{{ and }}}} for braces in the text") from error
    return Template(tuple((literal, _name(name, spec, conversion)) for literal, name, spec, conversion in fields))


def _name(name: str | None, spec: str | None, conversion: str | None) -> str:
    if name is None:
        return ""
    if conversion or spec:
        raise ValueError(f"{name!r} has a conversion or a format spec; only plain names as in {{question}} are allowed")
    if not _PLAIN_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no plain name: letters, digits and _ only, no attributes, no indexes, no leading _"
        )
    return name


def _text(name: str, values: Mapping[str, Any]) -> str:
    if name not in values:
        raise ValueError(f"the variable {name!r} has no value; known: {', '.join(sorted(values))}")
    value = values[name]
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | int | float | list | tuple | dict):
        # default: an object inside a list must not run a __str__ or __repr__ of its own.
        return json.dumps(value, ensure_ascii=False, default=lambda inner: f"<{type(inner).__name__}>")
    raise ValueError(f"the variable {name!r} is a {type(value).__name__}, which a prompt can't hold")
