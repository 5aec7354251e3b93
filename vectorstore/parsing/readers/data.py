"""JSON and JSON lines as text: records are paragraphs of `path: value` lines, lists of an object have headings."""

import json
from collections.abc import Iterator
from typing import Any

from vectorstore.parsing.decoding import decoded
from vectorstore.parsing.readers.output import Output, one_line, plain
from vectorstore.parsing.values import Parsed, Unparsable

#: Deeper than any document of facts; a value may be nested so far below its record.
_DEEPEST = 64
_LONGEST_KEY = 200


def read(data: bytes, *, declared: str, most_chars: int) -> Parsed:
    text = decoded(data, declared=declared)
    output = Output(most_chars)
    value = _value(text)
    if isinstance(value, dict):
        _object(value, output)
    elif isinstance(value, list):
        _records(value, output)
    else:
        output.paragraph(plain(_scalar(value)))
    return Parsed(text=str(output), markdown=True)


def _value(text: str) -> Any:
    """The value, or the list of the values of its lines."""
    try:
        return json.loads(text)
    except ValueError as error:
        # One document by line is told by the second line beginning where one document would have ended.
        if not (isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"):
            raise _wrong(error, 0) from error
    values = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except ValueError as error:
                raise _wrong(error, number) from error
    return values


def _wrong(error: ValueError, line: int) -> Unparsable:
    if isinstance(error, json.JSONDecodeError):
        place = f"line {line or error.lineno}, column {error.colno}"
        return Unparsable("parse_failed", f"is not valid JSON ({place})")
    return Unparsable("parse_failed", "is not valid JSON: it has a number with too many digits")


def _object(value: dict[str, Any], output: Output) -> None:
    """Its plain values first, then each list or object below a heading."""
    output.paragraph(_paragraph({key: each for key, each in value.items() if not _records_of(each)}))
    for key, each in value.items():
        if _records_of(each):
            output.heading(1, key)
            _records(each if isinstance(each, list) else [each], output)


def _records_of(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict | list) for each in value))


def _records(values: list[Any], output: Output) -> None:
    for each in values:
        output.paragraph(_paragraph(each) if isinstance(each, dict | list) else plain(_scalar(each)))


def _paragraph(value: Any) -> str:
    return "\n".join(plain(line) for line in _lines(value, "", 0))


def _lines(value: Any, path: str, depth: int) -> Iterator[str]:
    """`path: value` for each plain value below; a list of plain values is one line."""
    if depth > _DEEPEST:
        raise Unparsable("parse_failed", f"is nested more than {_DEEPEST} levels deep")
    if isinstance(value, dict):
        for key, each in value.items():
            name = one_line(key)[:_LONGEST_KEY]
            yield from _lines(each, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for number, each in enumerate(value, 1):
            yield from _lines(each, f"{path}[{number}]", depth + 1)
    else:
        text = ", ".join(map(_scalar, value)) if isinstance(value, list) else _scalar(value)
        if text.strip():
            yield f"{path}: {text}" if path else text


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
