"""The hot tail that store `redis` keeps: a list of entries, each of which says which places it accounts for.

An entry stands for the places `since … order` of the conversation, of which only `order` says something (or nothing:
a failed answer has no text). Whether a tail is the right view can so be read off the tail itself: its entries must join
without a gap and end just before the question. A lost write, one that came twice, two writers, an old snapshot: each
leaves a tail that does not fit, and the caller rebuilds it. Pure: no Redis here.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from memory.truth import Row

#: `since` of an entry with nothing before it: the conversation begins here.
BEGINNING = 0


class Entry(msgspec.Struct, frozen=True, array_like=True):
    since: int
    order: int
    role: str
    content: str
    id: str


def encode(entry: Entry) -> bytes:
    return msgspec.json.encode(entry)


def decode(items: Iterable[bytes]) -> list[Entry]:
    """The entries, or none of them if any is not one of ours."""
    try:
        return [msgspec.json.decode(item, type=Entry) for item in items]
    except msgspec.MsgspecError:
        return []


def build(rows: Sequence[Row], *, before_order: int, whole: bool) -> list[Entry]:
    """A tail of `rows` that ends just before the question; `whole`: no remembered message is older than they are.

    Not whole means that there is at least one row.
    """
    entries: list[Entry] = []
    since = BEGINNING if whole else rows[0].order
    for row in rows:
        entries.append(Entry(since, row.order, row.role, row.content, str(row.id)))
        since = row.order + 1
    if since < before_order:
        entries.append(Entry(since, before_order - 1, "", "", ""))
    return entries


def view(entries: Sequence[Entry], *, limit: int, before_order: int) -> list[Entry] | None:
    """The last `limit` entries that say something, or None if this tail can't be trusted to hold them."""
    joined = all(left.order + 1 == right.since for left, right in pairwise(entries))
    if not entries or entries[-1].order != before_order - 1 or not joined:
        return None
    said = [entry for entry in entries if entry.content]
    if len(said) < limit and entries[0].since != BEGINNING:
        return None
    return said[-limit:] if limit > 0 else []
