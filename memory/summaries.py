"""Summaries as rows: the newest that holds for a branch, what is still to be summarised, and keeping a new one.

Which messages stand on a branch is read upwards from its end, as memory.truth does, and no further than to the message
that the newest summary reaches up to. Sync functions: units of work for kernel.database.run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from django.apps import apps
from django.db import connection, transaction
from django.db.models import Q

from kernel.conf import config as settings
from llm.tokens import PER_MESSAGE
from memory import jobs, truth
from memory.jobs import Claim
from memory.models import Summary
from memory.options import SummaryBufferOptions, SummaryOptions

#: Summaries of a session that are kept: after a deletion an earlier one may still hold.
VERSIONS = 5
_EVERYTHING = 2**31 - 1
#: Messages that are looked at together.
_AT_ONCE = 200


class Held(NamedTuple):
    """A summary, and the message that it reaches up to."""

    id: UUID
    text: str
    through_order: int
    through_id: UUID


class Said(NamedTuple):
    """A message after a summary that says something, without its text; `length` is in characters."""

    id: UUID
    order: int
    role: str
    length: int


@dataclass(frozen=True, kw_only=True)
class Due:
    """What is to be summarised, after `base`; `texts` has each message's role and text."""

    base: Held | None
    said: Sequence[Said]
    texts: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A summary to be kept: of `base` and of the messages `ids`, whose last is at the place `order`."""

    base: UUID | None
    ids: Sequence[UUID]
    order: int
    text: str
    model: str
    prompt_hash: str


def newest(
    session_id: UUID,
    leaf: UUID,
    *,
    before_order: int = _EVERYTHING,
    within: int = _EVERYTHING,
    prompt_hash: str | None = None,
) -> Held | None:
    """The summary that covers most of the branch that ends with `leaf`, if one ends among its last `within` messages.

    One query, one index look-up for each message behind the summary.
    """
    asked: dict[str, Any] = {
        "session": session_id,
        "leaf": leaf,
        "before": before_order,
        "within": within,
        "hash": prompt_hash,
        "any": prompt_hash is None,
    }
    with connection.cursor() as cursor:
        cursor.execute(_NEWEST.format(messages=truth.table("ChatHistory")), asked)
        row = cursor.fetchone()
    return None if row is None else Held(*row)


def after(session_id: UUID, leaf: UUID, base: Held | None) -> list[Said]:
    """What the branch says after the summary, up to the first message that is still under way; oldest first."""
    asked = {
        "session": session_id,
        "leaf": leaf,
        "through": base.through_id if base is not None else None,
        "remembered": list(truth.REMEMBERED),
        "roles": list(truth.ROLES),
    }
    with connection.cursor() as cursor:
        cursor.execute(_AFTER.format(messages=truth.table("ChatHistory")), asked)
        rows = cursor.fetchall()
    settled = next((at for at, row in enumerate(rows) if row[-1]), len(rows))
    return [Said(*row[:4]) for row in rows[:settled] if row[4]]


def due(session_id: UUID, options: SummaryOptions | SummaryBufferOptions, count: Callable[[str], int]) -> Due | None:
    """What of the active branch is to be summarised next, oldest first; None: nothing yet.

    It ends before a user's message: what is left to be shown as it is begins with one.
    """
    leaf = truth.place_of(session_id).leaf
    if leaf is None:
        return None
    base = newest(session_id, leaf, prompt_hash=options.prompt_hash)
    said = after(session_id, leaf, base)
    if isinstance(options, SummaryOptions):
        tail, full = options.tail, len(said) - options.tail >= options.every
    else:
        tail, full = _newest_half(session_id, said, options.max_tokens or settings().memory.tokens, count)
    cut = max(0, len(said) - tail)
    while 0 < cut < len(said) and said[cut].role != "USER":
        cut -= 1
    if not full or not cut:
        return None
    chosen = said[: min(cut, _AT_ONCE)]
    return Due(base=base, said=chosen, texts=texts(session_id, [each.id for each in chosen]))


def _newest_half(
    session_id: UUID, said: Sequence[Said], max_tokens: int, count: Callable[[str], int]
) -> tuple[int, bool]:
    """How many of the newest messages have half of the tokens, and whether all of them have nearly too many."""
    looked_at = said[-max(1, max_tokens // PER_MESSAGE) :]
    contents = texts(session_id, [each.id for each in looked_at])
    total = tail = 0
    for _, content in reversed(contents):
        total += count(content) + PER_MESSAGE
        tail += total <= max_tokens // 2
    return tail, total > max_tokens * 3 // 4 or len(said) > len(looked_at)


def texts(session_id: UUID, ids: Sequence[UUID]) -> list[tuple[str, str]]:
    """Roles and texts of messages that still say something, in their order."""
    found = saying(session_id).filter(id__in=ids)
    return list(found.order_by("order").values_list("role", "content"))


def keep(mine: Claim, new: Written) -> bool:
    """Keep a summary, unless the job is another's by now, or something that it was made from has been deleted.

    Deletions lock the session's row, so that one is either seen here, or finds this summary and takes it along.
    """
    sessions: Any = apps.get_model("chat", "ChatSession").objects
    with transaction.atomic():
        session = sessions.select_for_update(of=("self",)).filter(id=mine.session_id).first()
        if session is None or not jobs.progress(mine):
            return False
        rows = Summary.objects.filter(session_id=mine.session_id)
        if new.base is not None and not rows.filter(id=new.base).exists():
            return False
        if saying(mine.session_id).filter(id__in=new.ids).count() != len(new.ids):
            return False
        last = rows.order_by("-version").values_list("version", flat=True).first() or 0
        row = Summary(
            workspace_id=mine.workspace_id,
            session_id=mine.session_id,
            through_id=new.ids[-1],
            through_order=new.order,
            version=last + 1,
            text=new.text,
            model=new.model,
            prompt_hash=new.prompt_hash,
        )
        row.save(force_insert=True)
        _prune(row)
    return True


def forget(session_id: UUID, orders: Sequence[int]) -> None:
    """Delete every summary that covers a message at one of these places, in the transaction that deletes it."""
    Summary.objects.filter(session_id=session_id, through_order__gte=min(orders)).delete()


def saying(session_id: UUID) -> Any:
    """The session's messages that say something, on whatever branch."""
    messages: Any = apps.get_model("chat", "ChatHistory").objects
    return messages.filter(
        session_id=session_id, is_deleted=False, role__in=truth.ROLES, status__in=truth.REMEMBERED
    ).exclude(content="")


def _prune(newest: Summary) -> None:
    """Old versions; and those told otherwise, once this one reaches as far."""
    rows = Summary.objects.filter(session_id=newest.session_id).exclude(id=newest.id)
    same = Q(prompt_hash=newest.prompt_hash)
    outdated = rows.filter(same).order_by("-version").values_list("id", flat=True)[VERSIONS - 1 :]
    rows.filter(Q(id__in=list(outdated)) | (~same & Q(through_order__lte=newest.through_order))).delete()


# Without any summary of the session there is nothing to walk for.
_NEWEST = """
WITH RECURSIVE known AS MATERIALIZED (
    SELECT id, text, through_order, through_id, version FROM memory_summary
    WHERE session_id = %(session)s AND through_order < %(before)s AND (%(any)s OR prompt_hash = %(hash)s)
), walk AS (
    SELECT id, parent_id, 1 AS depth FROM {messages}
    WHERE id = %(leaf)s AND (session_id = %(session)s) IS TRUE AND EXISTS (SELECT 1 FROM known)
  UNION ALL
    SELECT above.id, above.parent_id, walk.depth + 1
    FROM walk JOIN {messages} AS above ON above.id = walk.parent_id
    WHERE walk.depth < %(within)s AND walk.id NOT IN (SELECT through_id FROM known)
)
SELECT known.id, known.text, known.through_order, known.through_id
FROM walk JOIN known ON known.through_id = walk.id ORDER BY walk.depth, known.version DESC LIMIT 1
"""

_AFTER = """
WITH RECURSIVE walk AS (
    SELECT id, parent_id FROM {messages}
    WHERE id = %(leaf)s AND (session_id = %(session)s) IS TRUE AND (%(through)s::uuid IS NULL OR id <> %(through)s)
  UNION ALL
    SELECT above.id, above.parent_id FROM walk JOIN {messages} AS above ON above.id = walk.parent_id
    WHERE %(through)s::uuid IS NULL OR above.id <> %(through)s
)
SELECT said.id, said."order", said.role, length(said.content),
    NOT said.is_deleted AND said.content <> '' AND said.role = ANY(%(roles)s) AND said.status = ANY(%(remembered)s),
    said.status = 'pending'
FROM walk JOIN {messages} AS said ON said.id = walk.id ORDER BY said."order"
"""
