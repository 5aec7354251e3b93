"""Mustache templates, without what reaches out of the data: no partials, no lambdas, no other delimiters.

LangChain's tokenizer reads them; the rendering is ours, since theirs has no bound: three nested sections over lists of
a thousand are a billion items. And theirs escapes `{{name}}` for HTML, which a prompt is not: here it is `{{&name}}`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.utils.mustache import ChevronError, tokenize

from llm.template_values import Work, plain

MAX_TAGS = 2_000
MAX_DEPTH = 8
_PATH = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.([A-Za-z0-9][A-Za-z0-9_]*)){0,4}")
_REFUSED = {"partial": "a partial", "set delimiter": "another delimiter", "set delimiter?": "another delimiter"}
_HERE = "."


@dataclass(frozen=True, slots=True)
class _Section:
    path: tuple[str, ...]
    inverted: bool = False
    nodes: "list[str | tuple[str, ...] | _Section]" = field(default_factory=list)


#: A text as it stands, the path to a variable (empty: the item itself), or a section.
_Node = str | tuple[str, ...] | _Section


@dataclass(frozen=True, slots=True)
class Mustache:
    """`variables` stand outside of sections or open one; what stands inside may be a key of the section's items."""

    nodes: list[_Node]
    variables: frozenset[str]
    names: frozenset[str]

    def render(self, values: Mapping[str, Any], work: Work | None = None) -> str:
        """As Template.render."""
        work = work or Work()
        for name in sorted(self.variables - values.keys()):
            raise ValueError(f"the variable {name!r} has no value; known: {', '.join(sorted(values))}")
        data = {name: plain(name, values[name], work) for name in sorted(self.names & values.keys())}
        pieces: list[str] = []
        _render(self.nodes, (data,), pieces, work)
        return "".join(pieces)


def parse(source: str) -> Mustache:
    """Raises ValueError that names the fault."""
    if source.count("{{") > MAX_TAGS:
        raise ValueError(f"a mustache template may have {MAX_TAGS} tags")
    if source.endswith("{{"):
        raise ValueError("braces don't match: a tag is not closed")
    root = _Section(())
    open_sections = [root]
    try:
        for kind, key in tokenize(source):
            _take(kind, key, open_sections)
    except ChevronError as error:
        # Its text counts lines in a variable that all threads share.
        raise ValueError("braces don't match: a tag is empty or not closed, or a section isn't") from error
    variables = frozenset(_first(node) for node in root.nodes if not isinstance(node, str))
    return Mustache(root.nodes, variables, frozenset(_names(root.nodes)))


def unescaped(source: str) -> str:
    """The template for a renderer that escapes `{{name}}` for HTML: with `{{&name}}` in its place."""
    return re.sub(r"(?<!\{)\{\{(?=\s*[A-Za-z.])", "{{&", source)


def _take(kind: str, key: str, open_sections: list[_Section]) -> None:
    here = open_sections[-1].nodes
    match kind:
        case "literal":
            here.append(key)
        case "variable" | "no escape":
            here.append(_path(key, inside=len(open_sections) > 1))
        case "section" | "inverted section":
            if len(open_sections) > MAX_DEPTH:
                raise ValueError(f"sections may be nested {MAX_DEPTH} deep")
            section = _Section(_path(key, inside=len(open_sections) > 1), kind == "inverted section")
            here.append(section)
            open_sections.append(section)
        case "end":
            open_sections.pop()
        case "comment":
            pass
        case _:
            what = _REFUSED.get(kind, "a third brace without its partner")
            raise ValueError(f"{what} is not allowed in a prompt; only variables, sections and comments are")


def _path(key: str, *, inside: bool) -> tuple[str, ...]:
    if key == _HERE and inside:
        return ()
    if not _PATH.fullmatch(key):
        raise ValueError(
            f"{key!r} is no plain name: letters, digits and _ only, no leading _; dots lead into plain data, 4 at most"
        )
    return tuple(key.split("."))


def _first(node: tuple[str, ...] | _Section) -> str:
    return (node.path if isinstance(node, _Section) else node)[0]


def _names(nodes: list[_Node]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        path = node.path if isinstance(node, _Section) else () if isinstance(node, str) else node
        found.update(path[:1])
        if isinstance(node, _Section):
            found |= _names(node.nodes)
    return found


def _render(nodes: list[_Node], scopes: tuple[Any, ...], pieces: list[str], work: Work) -> None:
    for node in nodes:
        work.step()
        if isinstance(node, str):
            pieces.append(work.made(node))
        elif isinstance(node, tuple):
            value = _find(node, scopes, work)
            pieces.append(work.made("" if value is None else work.text_of(value)))
        else:
            _render_section(node, scopes, pieces, work)


def _render_section(section: _Section, scopes: tuple[Any, ...], pieces: list[str], work: Work) -> None:
    value = _find(section.path, scopes, work)
    if section.inverted:
        if not value:
            _render(section.nodes, scopes, pieces, work)
    elif isinstance(value, list):
        for item in value:
            work.step()
            _render(section.nodes, (item, *scopes), pieces, work)
    elif value:
        _render(section.nodes, (value, *scopes), pieces, work)


def _find(path: tuple[str, ...], scopes: tuple[Any, ...], work: Work) -> Any:
    """The value at the path in the innermost scope that has its first name; None if there is none."""
    if not path:
        return scopes[0]
    for scope in scopes:
        work.step()
        if isinstance(scope, dict) and path[0] in scope:
            value: Any = scope
            for key in path:
                work.step()
                value = _inside(value, key)
            return value
    return None


def _inside(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list) and key.isdecimal() and len(key) < 7 and int(key) < len(value):
        return value[int(key)]
    return None
