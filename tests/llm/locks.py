"""Rows that somebody else holds: how tests bring two transactions into the order that they are about."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from django.db import connection, transaction

from kernel import database


class Locked:
    """`with Locked(rows) as lock:` nobody can write these rows, nor refer to them, until `lock.let_go()`."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self._held, self._free = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        with transaction.atomic():
            list(self._rows.select_for_update(of=("self",)))
            self._held.set()
            self._free.wait(20)
        connection.close()

    def __enter__(self) -> "Locked":
        self._thread.start()
        assert self._held.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        self._free.set()
        self._thread.join()


def somebody_waits() -> bool:
    """Whether a transaction waits for another's lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(cursor.fetchone()[0])


async def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds()`, which looks into the database."""
    async with asyncio.timeout(10):
        while not await database.run_ahead(holds):
            await asyncio.sleep(0.02)
