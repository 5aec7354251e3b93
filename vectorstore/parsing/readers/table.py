"""CSV: each row a paragraph of its own, `column: value` by line, so that a passage makes sense without the header."""

import csv
from collections.abc import Iterator
from io import StringIO
from itertools import chain, islice

from vectorstore.parsing.decoding import decoded
from vectorstore.parsing.readers.output import Output, one_line
from vectorstore.parsing.values import Parsed, Unparsable

_DELIMITERS = ",;\t|"
#: Rows looked at to tell the delimiter and the header.
_SAMPLE = 20
_LONGEST_FIELD = 100_000
_LONGEST_NAME = 100
_MOST_COLUMNS = 1000


def read(data: bytes, *, declared: str, most_chars: int) -> Parsed:
    csv.field_size_limit(_LONGEST_FIELD)
    text = decoded(data, declared=declared)
    delimiter = max(_DELIMITERS, key=lambda sign: _fit(text, sign))
    rows = _rows(text, delimiter)
    first = list(islice(rows, _SAMPLE))
    header = _header(first)
    output = Output(most_chars)
    for row in chain(first[1 if header else 0 :], rows):
        output.paragraph("\n".join(_lines(row, header)))
    return Parsed(text=str(output), metadata={"columns": header[:_LONGEST_NAME]})


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    """Rows that are not empty."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            if len(row) > _MOST_COLUMNS:
                raise Unparsable("too_large", f"has more than {_MOST_COLUMNS} columns in line {reader.line_num}")
            if any(cell.strip() for cell in row):
                yield row
    except csv.Error as error:
        reason = f"is no readable CSV (line {reader.line_num}): a field is too long or a quote is not closed"
        raise Unparsable("parse_failed", reason) from error


def _fit(text: str, delimiter: str) -> tuple[int, int]:
    """How well a delimiter fits: rows that have as many cells as the first, if that has more than one; its cells."""
    try:
        widths = [len(row) for row in islice(_rows(text, delimiter), _SAMPLE)]
    except Unparsable:
        return 0, 0
    return (widths.count(widths[0]), widths[0]) if widths and widths[0] > 1 else (0, 0)


def _header(rows: list[list[str]]) -> list[str]:
    """The names of the columns, if the first row has some: words, each once, above rows of values."""
    names = [one_line(cell) for cell in rows[0]] if len(rows) > 1 else []
    while names and not names[-1]:
        names.pop()
    named = all(names) and len(set(names)) == len(names) and not any(_number(name) for name in names)
    return names if named and all(len(name) <= _LONGEST_NAME for name in names) else []


def _number(text: str) -> bool:
    return text.strip("+-%€$£ ").replace(".", "").replace(",", "").replace(":", "").replace("-", "").isdigit()


def _lines(row: list[str], header: list[str]) -> Iterator[str]:
    for number, cell in enumerate(row):
        if value := one_line(cell):
            name = header[number] if number < len(header) else f"column {number + 1}"
            yield value if len(row) == 1 and not header else f"{name}: {value}"
