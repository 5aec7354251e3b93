"""Migrations take the time that they need: a connection's bound on statements is for those whom somebody waits for.

The bound on waiting for a lock stays. A migration that waits for one holds up all who come after it; rather it fails,
changes nothing, and is run again.
"""

from typing import Any

from django.db import connections
from django.db.models.signals import post_migrate, pre_migrate


def watch() -> None:
    pre_migrate.connect(_unbound, dispatch_uid="kernel.migrating")
    post_migrate.connect(_bound, dispatch_uid="kernel.migrating")


def _unbound(using: str, **_: Any) -> None:
    _set(using, "SET statement_timeout = 0")


def _bound(using: str, **_: Any) -> None:
    _set(using, "RESET statement_timeout")


def _set(using: str, statement: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(statement)
