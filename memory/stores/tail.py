"""The end of a conversation as the stores `redis` and `inmemory` keep it: a chain of messages, each with its parent.

Whether a tail is the right view can be read off the tail itself: it must end with the message that the question
follows, and each entry must be the parent of the next. A message never gets another parent, so whatever happened to a
tail (a lost write, one that came twice, two writers, another branch, an old snapshot) it is right or seen not to be,
and then rebuilt. What a message says may change only with the session's epoch, under which the tail is kept. Pure.
"""

from collections.abc import Iterable, Sequence

import msgspec

from memory.truth import Row


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A message; `parent` is empty for the conversation's first, `content` for one that says nothing."""

    id: str
    parent: str
    order: int
    role: str
    content: str


def encode(entry: Entry) -> bytes:
    return msgspec.json.encode(entry)


def decode(items: Iterable[bytes]) -> list[Entry]:
    """The entries, or none of them if any is not one of ours."""
    try:
        return [msgspec.json.decode(item, type=Entry) for item in items]
    except msgspec.MsgspecError:
        return []


def build(rows: Sequence[Row]) -> list[Entry]:
    """The tail of a branch, as memory.truth.branch has it."""
    return [Entry(str(row.id), str(row.parent or ""), row.order, row.role, row.content) for row in rows]


def view(entries: Sequence[Entry], *, leaf: str, limit: int, before_order: int | None = None) -> list[Entry] | None:
    """The last `limit` entries that say something of the branch that ends with `leaf` (empty: nothing was said).

    None if this tail can't be trusted to hold them.
    """
    said: list[Entry] = []
    wanted = leaf
    for entry in reversed(entries):
        if not wanted or len(said) >= limit:
            break
        if entry.id != wanted:
            return None
        if entry.content and (before_order is None or entry.order < before_order):
            said.append(entry)
        wanted = entry.parent
    if wanted and len(said) < limit:
        return None
    return said[::-1]
