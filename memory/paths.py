"""Where a session's branch stands: the places of its messages, as ranges, kept by the worker after each turn.

So that recall tells in a few steps, also in a session of ten thousand messages, which of them are on its branch: it
walks up from the branch's end to the first message that is on the known path. Parents stand before their children, so
what the path has before that one is on the branch, too. Sync functions: units of work for kernel.database.run.
"""

from typing import Any
from uuid import UUID

from django.db import connection

from memory import truth
from memory.models import BranchPath

#: Messages walked up where no path is known, which it is soon after a branch's first turn. What is farther back is
#: not recalled until then.
WALKED = 2000
_EVERYTHING = 2**31 - 1


def keep(session_id: UUID, workspace_id: UUID) -> None:
    """Keep the path of the active branch."""
    place = truth.place_of(session_id)
    if place.leaf is None:
        return
    asked: dict[str, Any] = {"session": session_id, "leaf": place.leaf, "branched": place.epoch > 0}
    with connection.cursor() as cursor:
        cursor.execute(_WHOLE.format(walk=walk(), messages=truth.table("ChatHistory")), asked | {"walked": _EVERYTHING})
        (places,) = cursor.fetchone()
    found = {"workspace_id": workspace_id, "places": places}
    BranchPath.objects.update_or_create(session_id=session_id, defaults=found)


def walk() -> str:
    """The beginning of a statement: `path.places` of the branch that ends with `leaf`.

    It takes `session`, `leaf`, `walked`, and `branched`: a session whose past never changed needs no walk, and has no
    places there.
    """
    return _WALK.format(messages=truth.table("ChatHistory"))


_WALK = """
WITH RECURSIVE known AS MATERIALIZED (
    SELECT places FROM memory_branchpath WHERE session_id = %(session)s AND %(branched)s
), walk AS (
    SELECT id, parent_id, "order", 1 AS depth FROM {messages}
    WHERE id = %(leaf)s AND (session_id = %(session)s) IS TRUE AND %(branched)s
  UNION ALL
    SELECT above.id, above.parent_id, above."order", walk.depth + 1
    FROM walk JOIN {messages} AS above ON above.id = walk.parent_id
    WHERE walk.depth < %(walked)s AND NOT COALESCE(walk."order" <@ (SELECT places FROM known), false)
), path AS MATERIALIZED (
    SELECT COALESCE(range_agg(int4range("order", "order", '[]')), '{{}}') + COALESCE(
        (SELECT places FROM known WHERE min(walk."order") <@ places)
            * int4multirange(int4range(NULL, min(walk."order"), '[]')), '{{}}') AS places
    FROM walk
)"""

_WHOLE = """
{walk}
SELECT CASE WHEN %(branched)s THEN (SELECT places FROM path)
    ELSE int4multirange(int4range(NULL, said."order", '[]')) END::text
FROM {messages} AS said WHERE said.id = %(leaf)s
"""
