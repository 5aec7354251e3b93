"""The conversation as PostgreSQL holds it: a tree, of which memory reads one branch, from its end upwards.

A branch is the path from a message up through its parents. ChatHistory and ChatSession belong to a higher layer, so
they are named by their app label. Sync functions: units of work for kernel.database.run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple, Self
from uuid import UUID

from django.apps import apps
from django.db import connection

#: A run that is under way or failed has said nothing that the user would count as an answer.
REMEMBERED = ("complete", "stopped", "interrupted")
ROLES = ("USER", "ASSISTANT")
#: Places in a conversation are smaller.
_EVERYTHING = 2**31 - 1

#: Seconds for which a copy outside of this process is read after its epoch was known to be the session's. Who can't
#: drop a copy waits for longer than that: then nobody reads it any more.
TRUSTED = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a conversation is remembered from: the branch that ends with `leaf` (None: nothing was said before).

    `epoch` counts the changes of the session's past: what was copied in an earlier one may hold what is deleted now.
    `as_of`: a moment at which it was the session's, by this process's time.monotonic.
    """

    leaf: UUID | None
    epoch: int
    as_of: float = field(default_factory=monotonic)

    @classmethod
    def given(cls, config: Mapping[str, Any]) -> Self | None:
        """The place in what a store's factory is given; None: wherever the session stands when the store is read."""
        if "epoch" not in config:
            return None
        return cls(config.get("leaf"), config["epoch"], config.get("as_of") or monotonic())


class Row(NamedTuple):
    """A message of a branch. One that says nothing (deleted, failed, under way) has no content."""

    order: int
    role: str
    content: str
    id: UUID
    parent: UUID | None
    pending: bool = False


def place_of(session_id: UUID) -> Place:
    """The session's active branch, which ends with its newest message; an empty place for a session that is gone."""
    sessions: Any = apps.get_model("chat", "ChatSession").objects
    as_of = monotonic()
    found = sessions.filter(id=session_id).values_list("head_id", "memory_epoch").first()
    leaf, epoch = found or (None, 0)
    return Place(leaf, epoch, as_of)


def last_rows(session_id: UUID, *, limit: int, before_order: int | None = None, leaf: UUID | None = None) -> list[Row]:
    """The last `limit` remembered messages of the branch that ends with `leaf`, oldest first: one query.

    Without a `leaf` it is the active branch. `before_order`: only those that stand before that place.
    """
    return [row for row in branch(session_id, limit=limit, before_order=before_order, leaf=leaf) if row.content]


def branch(session_id: UUID, *, limit: int, before_order: int | None = None, leaf: UUID | None = None) -> list[Row]:
    """The end of a branch with the last `limit` messages that say something, and the silent ones among and after them.

    Oldest first. One index look-up a message, from the leaf upwards, however long the session is.
    """
    if limit < 1:
        return []
    before = _EVERYTHING if before_order is None else before_order
    names = {"leaf": leaf, "session": session_id, "before": before, "limit": limit}
    asked = {**names, "remembered": list(REMEMBERED), "roles": list(ROLES)}
    with connection.cursor() as cursor:
        cursor.execute(_WALK.format(messages=table("ChatHistory"), sessions=table("ChatSession")), asked)
        return [Row(*values) for values in cursor.fetchall()]


# `heard` counts what says something, so that the walk ends with the last message that is asked for. IS TRUE: a message
# is looked up by its id. The planner may take a session that has grown since it last counted for a small one, and would
# read all of it.
_WALK = """
WITH RECURSIVE walk AS (
    SELECT id, parent_id, "order", role, status, says, content, says::int AS heard
    FROM {messages} CROSS JOIN LATERAL (
        SELECT NOT is_deleted AND content <> '' AND role = ANY(%(roles)s) AND status = ANY(%(remembered)s)
            AND "order" < %(before)s AS says
    ) AS saying
    WHERE (session_id = %(session)s) IS TRUE
        AND id = COALESCE(%(leaf)s, (SELECT head_id FROM {sessions} WHERE id = %(session)s))
  UNION ALL
    SELECT above.id, above.parent_id, above."order", above.role, above.status, saying.says, above.content,
        walk.heard + saying.says::int
    FROM walk JOIN {messages} AS above ON above.id = walk.parent_id CROSS JOIN LATERAL (
        SELECT NOT above.is_deleted AND above.content <> '' AND above.role = ANY(%(roles)s)
            AND above.status = ANY(%(remembered)s) AND above."order" < %(before)s AS says
    ) AS saying
    WHERE walk.heard < %(limit)s
)
SELECT "order", role, CASE WHEN says THEN content ELSE '' END, id, parent_id, status = 'pending'
FROM walk ORDER BY "order"
"""


def table(model: str) -> str:
    """The quoted name of the table of a model of chat's."""
    return str(connection.ops.quote_name(apps.get_model("chat", model)._meta.db_table))
