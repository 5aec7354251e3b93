"""What `manage.py check --database default` says of the wall between workspaces."""

from collections.abc import Sequence
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage
from django.db import connections


def row_security(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """A database check: a role that row security does not hold for is no error, but one wall is missing."""
    return [message for alias in databases or () for message in _of(alias)]


def _of(alias: str) -> list[CheckMessage]:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT rolname, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
        role, passes = cursor.fetchone()
    if not passes:
        return []
    return [
        checks.Warning(
            f"The role {role!r} of the database {alias!r} passes row security.",
            hint="Connect with a role that is no superuser and has no BYPASSRLS: row security is the second wall"
            " between workspaces (docs/decisions/0009).",
            id="vectorstore.W001",
        )
    ]
