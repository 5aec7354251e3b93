"""How `manage.py llm` shows what it found: a table for people, one JSON text for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Columns of a table that no terminal bounds: a pipe or a file gets each row on one line.
_WIDE = 400


@dataclass(frozen=True)
class Paper:
    """Where the output goes; `as_json` for programs."""

    out: TextIO
    as_json: bool

    def rows(self, found: Sequence[Mapping[str, Any]], columns: Sequence[str], *, nothing: str) -> None:
        """A table of the `columns` of each row; `nothing` is said if there is no row. As JSON: all of each row."""
        if self.as_json:
            self._json(list(found))
        elif not found:
            self.out.write(f"{nothing}\n")
        else:
            table = Table(*(column.replace("_", " ") for column in columns), box=None, pad_edge=False)
            for row in found:
                # As Text: what teams have named is no markup.
                table.add_row(*(Text(shown(row[column])) for column in columns))
            self._print(table)

    def facts(self, found: Mapping[str, Any]) -> None:
        """One thing, a line for each of its sides."""
        if self.as_json:
            self._json(dict(found))
        else:
            table = Table.grid(padding=(0, 2))
            for name, value in found.items():
                table.add_row(Text(name.replace("_", " ")), Text(shown(value)))
            self._print(table)

    def done(self, sentence: str, **facts: Any) -> None:
        """What was changed."""
        if self.as_json:
            self._json(facts)
        else:
            self.out.write(f"{sentence}\n")

    def _print(self, table: Table) -> None:
        tty = self.out.isatty()
        Console(file=self.out, width=None if tty else _WIDE, no_color=not tty, soft_wrap=not tty).print(table)

    def _json(self, found: Any) -> None:
        self.out.write(json.dumps(found, default=_encoded, ensure_ascii=False) + "\n")


def shown(value: Any) -> str:
    """A value as people read it, without what would move a terminal's cursor."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(one)}" for name, one in value.items()) or "-"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))


def _encoded(value: Any) -> str:
    # Decimals as text: a price is no binary fraction.
    return value.isoformat() if isinstance(value, datetime) else str(value)
