"""Parsers run once, on the whole answer: while it streams people see text, and half a JSON document is none.

A fault's text may go back to the model, to mend its answer; it never goes to people.
"""

import json
import re
from typing import Any, Protocol

import jsonschema_rs

from llm import patterns, schemas
from llm.transforms import no_constant

_FENCE = re.compile(r"\A\s*```[a-zA-Z0-9]*[ \t]*\n(.*)\n[ \t]*```\s*\Z", re.DOTALL)
#: What stands before an item of a list that models write: "1. ", "- ", "* ".
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\d{1,4}[.)])\s+")


class Parser(Protocol):
    def parse(self, text: str) -> Any:
        """The value in the text. Raises ValueError that says what is wrong if it holds none."""


class StrParser:
    """The answer as it is."""

    def __init__(self, config: dict[str, Any]) -> None:
        _take(config, "str")

    def parse(self, text: str) -> str:
        return text


class JsonParser:
    """One JSON document, bare or in a code fence; `schema`: a JSON schema that it must fit."""

    def __init__(self, config: dict[str, Any]) -> None:
        _take(config, "json", "schema")
        self._validator = schemas.validator(config["schema"]) if "schema" in config else None

    def parse(self, text: str) -> Any:
        fenced = _FENCE.match(text)
        try:
            value = json.loads(fenced[1] if fenced else text, parse_constant=no_constant)
        except RecursionError as error:
            raise ValueError("it is nested too deep") from error
        except ValueError as error:
            raise ValueError(f"it is not one whole JSON document: {error}") from error
        if self._validator is not None:
            try:
                self._validator.validate(value)
            except jsonschema_rs.ValidationError as error:
                where = "".join(f"[{part!r}]" for part in error.instance_path) or "the top"
                raise ValueError(f"it does not fit the schema at {where}: {error.message}") from error
        return value


class SchemaParser(JsonParser):
    """A JSON document that fits `schema`, such as `Model.model_json_schema()` gives."""

    def __init__(self, config: dict[str, Any]) -> None:
        if not isinstance(config.get("schema"), dict):
            raise ValueError("'schema': a JSON schema is needed, as Model.model_json_schema() gives it")  # noqa: TRY004
        super().__init__(config)


class ListParser:
    """The items of a list: one a line, without bullets and numbers, or between `separator`s."""

    def __init__(self, config: dict[str, Any]) -> None:
        _take(config, "list", "separator")
        self._separator = config.get("separator", "\n")
        if not isinstance(self._separator, str) or not self._separator:
            raise ValueError("'separator': a text that is not empty")

    def parse(self, text: str) -> list[str]:
        pieces = (_BULLET.sub("", piece).strip() for piece in text.split(self._separator))
        items = [piece for piece in pieces if piece]
        if not items:
            raise ValueError("it has no items")
        return items


class RegexParser:
    """What `pattern` finds first: an object of its named groups, its only group, or all that it matched."""

    def __init__(self, config: dict[str, Any]) -> None:
        _take(config, "regex", "pattern")
        self._pattern = patterns.compile_pattern(config.get("pattern"))

    def parse(self, text: str) -> Any:
        found = patterns.search(self._pattern, text)
        if found is None:
            raise ValueError("it does not match the pattern that is asked for")
        if named := found.groupdict():
            return named
        groups = found.groups()
        return found.group() if not groups else groups[0] if len(groups) == 1 else list(groups)


def _take(config: dict[str, Any], name: str, *known: str) -> None:
    if unknown := sorted(set(config) - set(known)):
        takes = f"takes {', '.join(known)}, not {unknown[0][:60]!r}" if known else "takes no options"
        raise ValueError(f"the parser {name!r} {takes}")
