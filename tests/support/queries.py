"""What is asked of the database, whichever thread asks it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db.backends.signals import connection_created


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements of all threads' connections: the database's units run in threads of their own."""
    seen: list[str] = []
    open_ = True

    def count(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        # Which rows are seen is said at the begin of each transaction: its cost is not the request's.
        if open_ and "set_config" not in sql:
            seen.append(sql)
        return execute(sql, params, many, context)

    def install(*, connection: Any, **_: Any) -> None:
        if count not in connection.execute_wrappers:
            connection.execute_wrappers.append(count)

    connection_created.connect(install)
    try:
        yield seen
    finally:
        open_ = False
        connection_created.disconnect(install)
