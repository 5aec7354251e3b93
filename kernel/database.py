"""Database work from async code: one sync function is one unit of work, one thread hop, at most one transaction.

Django's ORM is synchronous; `sync_to_async` would send every socket's query through one shared thread. The units of
work run in a small pool of threads instead, each with a connection from psycopg's pool, given back when the unit
ends.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, connections
from psycopg_pool import PoolTimeout, TooManyRequests

from kernel.conf import config
from kernel.errors import Busy, DatabaseUnavailable

P = ParamSpec("P")
T = TypeVar("T")


class _Units:
    """The threads of this process, made on first use, and how many units wait for or hold one."""

    def __init__(self, threads: Callable[[], int], name: str) -> None:
        self._threads_wanted = threads
        self._name = name
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._open = 0

    async def run(self, call: Callable[[], T]) -> T:
        if self._open >= config().database.max_waiting:
            raise Busy("The server has too much to do; try again shortly.", retry_after=1)
        self._open += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads(), call)
        finally:
            self._open -= 1

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._threads_wanted(), thread_name_prefix=self._name)
            return self._executor

    def close(self) -> None:
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)


_units = _Units(lambda: config().database.threads, "chain-db")
_ahead = _Units(lambda: 1, "chain-db-ahead")


async def run(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run one unit of work in a database thread and return its result.

    Cancelling the caller does not stop the thread: the unit still commits or rolls back as a whole.
    Raises DatabaseUnavailable when PostgreSQL can't be reached, Busy when too many units wait for a thread.
    """
    return await _units.run(partial(contextvars.copy_context().run, _unit, partial(fn, *args, **kwargs)))


async def run_ahead(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`run`, in a thread of its own: for the little that keeps a process's work its own while users wait in line."""
    return await _ahead.run(partial(contextvars.copy_context().run, _unit, partial(fn, *args, **kwargs)))


def _unit(fn: Callable[[], T]) -> T:
    try:
        return fn()
    except (OperationalError, InterfaceError, PoolTimeout, TooManyRequests) as error:
        raise DatabaseUnavailable from error
    finally:
        for connection in connections.all(initialized_only=True):
            # Inside a test's own transaction the connection must outlive the unit.
            if not connection.in_atomic_block:
                connection.close()


def close() -> None:
    """End the threads; waits for the units that are under way."""
    _units.close()
    _ahead.close()
