"""Prompt templates: text with plain names in braces, or mustache over plain data; and nothing else.

Templates come from the database, so they are input: `{u.password}`, `{u[0]}`, `{u!r}`, `{u:>50000000}` and `{}` are
refused when the template is read. Braces in a value stay as they are. Jinja2 runs code, so there is none.
"""

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from llm import mustache
from llm.template_values import Work, plain, text_of

MAX_CHARS = 100_000
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class Template(Protocol):
    """A parsed template."""

    @property
    def variables(self) -> frozenset[str]:
        """Names that need a value."""

    @property
    def names(self) -> frozenset[str]:
        """Those, and names that are looked for only inside a section."""

    def render(self, values: Mapping[str, Any], work: Work | None = None) -> str:
        """The text. `work`: what is left for all the templates of a prompt.

        Raises ValueError that names the variable without a value, or with one that can't be text, or the bound.
        """


@dataclass(frozen=True, slots=True)
class FString:
    """Literal text, and after each piece the name of a variable or "" at the end."""

    parts: tuple[tuple[str, str], ...]

    @property
    def variables(self) -> frozenset[str]:
        return frozenset(name for _, name in self.parts if name)

    @property
    def names(self) -> frozenset[str]:
        return self.variables

    def render(self, values: Mapping[str, Any], work: Work | None = None) -> str:
        work = work or Work()
        texts = {name: text_of(plain(name, value_of(name, values), work)) for name in sorted(self.variables)}
        return "".join(work.made(literal) + (work.made(texts[name]) if name else "") for literal, name in self.parts)


def parse(source: str, template_format: str = "f-string") -> Template:
    """Raises ValueError that names the fault."""
    if template_format not in _FORMATS:
        raise ValueError(f"template_format: 'f-string' (plain names in braces) or 'mustache', not {template_format!r}")
    if len(source) > MAX_CHARS:
        raise ValueError(f"a template may have {MAX_CHARS} characters, this one has {len(source)}")
    return _FORMATS[template_format](source)


def is_plain_name(name: str) -> bool:
    return _PLAIN_NAME.fullmatch(name) is not None


def value_of(name: str, values: Mapping[str, Any]) -> Any:
    """Raises ValueError that names the variable if it has no value."""
    if name not in values:
        raise ValueError(f"the variable {name!r} has no value; known: {', '.join(sorted(values))}")
    return values[name]


def _parse_f_string(source: str) -> FString:
    try:
        fields = list(string.Formatter().parse(source))
    except ValueError as error:
        raise ValueError(f"braces don't match ({error}); write {{{{ and }}}} for braces in the text") from error
    return FString(tuple((literal, _name(name, spec, conversion)) for literal, name, spec, conversion in fields))


def _name(name: str | None, spec: str | None, conversion: str | None) -> str:
    if name is None:
        return ""
    if conversion or spec:
        raise ValueError(f"{name!r} has a conversion or a format spec; only plain names as in {{question}} are allowed")
    if not is_plain_name(name):
        raise ValueError(
            f"{name!r} is no plain name: letters, digits and _ only, no attributes, no indexes, no leading _"
        )
    return name


_FORMATS: dict[str, Callable[[str], Template]] = {"f-string": _parse_f_string, "mustache": mustache.parse}
FORMATS = tuple(_FORMATS)
