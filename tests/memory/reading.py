"""What memory reads of the database: its statements, and the rows that each of them looks at."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.db.backends.utils import CursorWrapper


@contextmanager
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """What goes to the database meanwhile, from every thread, with its values."""
    seen: list[tuple[str, Any]] = []
    execute = CursorWrapper._execute_with_wrappers

    def noting(self: Any, sql: str, params: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((sql, params))
        return execute(self, sql, params, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(CursorWrapper, "_execute_with_wrappers", noting)
        yield seen


def rows_read(seen: list[tuple[str, Any]]) -> dict[str, int]:
    """The rows that the statements look at, kept or not, by table; of an index that is read alone by its name."""
    read: dict[str, int] = {}
    for sql, params in seen:
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + sql, params)
            (found,) = cursor.fetchone()
        (explained,) = json.loads(found) if isinstance(found, str) else found
        _count(explained["Plan"], read)
    return read


def _count(node: dict[str, Any], read: dict[str, int]) -> None:
    if "Relation Name" in node:
        name = node["Index Name"] if node["Node Type"] == "Index Only Scan" else node["Relation Name"]
        rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        read[name] = read.get(name, 0) + round(rows * node["Actual Loops"])
    for inner in node.get("Plans", ()):
        _count(inner, read)
