"""The conversation as PostgreSQL holds it. ChatHistory belongs to a higher layer, so it is named by its app label.

Sync functions: units of work for kernel.database.run.
"""

from typing import Any, NamedTuple
from uuid import UUID

from django.apps import apps
from django.db.models import QuerySet

#: A run that is under way or failed has said nothing that the user would count as an answer.
REMEMBERED = ("complete", "stopped", "interrupted")
ROLES = ("USER", "ASSISTANT")


class Row(NamedTuple):
    order: int
    role: str
    content: str
    id: object


class Settled(NamedTuple):
    """Rows, and whether none before them can still change by a run that is under way."""

    rows: list[Row]
    settled: bool


def last_rows(session_id: UUID, *, limit: int, before_order: int | None) -> list[Row]:
    """The last `limit` remembered messages, oldest first: one query, read backwards along (session, order)."""
    rows = (
        _messages(session_id, before_order)
        .filter(is_deleted=False, role__in=ROLES, status__in=REMEMBERED)
        .exclude(content="")
        .order_by("-order")
        .values_list("order", "role", "content", "id")[: max(limit, 0)]
    )
    return [Row(*row) for row in reversed(rows)]


def settled_rows(session_id: UUID, *, limit: int, before_order: int) -> Settled:
    """`last_rows`, with the question first whether any run before that place is still open."""
    open_run = _messages(session_id, before_order).filter(status="pending").exists()
    return Settled(last_rows(session_id, limit=limit, before_order=before_order), settled=not open_run)


def _messages(session_id: UUID, before_order: int | None) -> QuerySet[Any]:
    model: Any = apps.get_model("chat", "ChatHistory")
    place = {} if before_order is None else {"order__lt": before_order}
    found: QuerySet[Any] = model.objects.filter(session_id=session_id, **place)
    return found
