"""A tail is either the right view or is seen not to be: damaged in any way, it is refused, never served wrong."""

from uuid import UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from memory.stores import tail
from memory.truth import Row

#: For each message of a branch whether it says something.
BRANCHES = st.lists(st.booleans(), min_size=1, max_size=30)
LIMITS = st.integers(1, 35)


def branch(says: list[bool]) -> list[Row]:
    ids = [UUID(int=number) for number in range(1, len(says) + 1)]
    return [
        Row(3 * number, "USER", f"m{number}" if say else "", ids[number], ids[number - 1] if number else None)
        for number, say in enumerate(says)
    ]


def said(rows: list[Row], limit: int, before_order: int | None = None) -> list[int]:
    heard = [row.order for row in rows if row.content and (before_order is None or row.order < before_order)]
    return heard[-limit:]


def shown(entries, rows, limit, before_order=None):
    """What a reader is served for a question that follows the last of `rows`; None: refused."""
    view = tail.view(entries, leaf=str(rows[-1].id), limit=limit, before_order=before_order)
    return None if view is None else [entry.order for entry in view]


@given(BRANCHES, LIMITS, st.one_of(st.none(), st.integers(0, 95)))
def test_a_tail_gives_back_the_rows_it_was_built_from(says, limit, before_order):
    rows = branch(says)
    entries = tail.decode([tail.encode(entry) for entry in tail.build(rows)])
    assert shown(entries, rows, limit, before_order) == said(rows, limit, before_order)


@given(BRANCHES, LIMITS, st.data())
def test_a_tail_without_one_of_its_entries_shows_no_gap(says, limit, data):
    rows = branch(says)
    entries = tail.build(rows)
    lost = data.draw(st.integers(0, len(entries) - 1))
    assert shown(entries[:lost] + entries[lost + 1 :], rows, limit) in (None, said(rows, limit))


@given(BRANCHES, LIMITS, st.data())
def test_a_tail_with_an_entry_twice_shows_nothing_twice(says, limit, data):
    rows = branch(says)
    entries = tail.build(rows)
    twice = data.draw(st.integers(0, len(entries) - 1))
    assert shown([*entries[: twice + 1], *entries[twice:]], rows, limit) in (None, said(rows, limit))


@given(BRANCHES, LIMITS, st.data())
def test_a_tail_of_another_branch_is_refused(says, limit, data):
    rows = branch(says)
    entries = tail.build(rows)
    other = data.draw(st.integers(0, len(rows) - 1))
    elsewhere = UUID(int=1000)
    sibling = rows[other]._replace(id=elsewhere, content="from another branch")
    mixed = [*rows[:other], sibling, *rows[other + 1 :]]
    assert shown(tail.build(mixed), rows, limit) in (None, said(rows, limit))
    assert tail.view(entries, leaf=str(elsewhere), limit=limit) is None


@given(BRANCHES, LIMITS, st.integers(1, 35))
def test_a_tail_that_is_too_short_is_refused(says, limit, held):
    rows = branch(says)
    assume(held < len(rows))
    got = shown(tail.build(rows[-held:]), rows, limit)
    assert got in (None, said(rows, limit))


def test_a_conversation_of_which_nothing_was_said_needs_no_tail():
    assert tail.view([], leaf="", limit=5) == []
    assert tail.view([], leaf="x", limit=5) is None


def test_what_is_not_ours_reads_as_no_tail():
    assert tail.decode([b"[1,2]"]) == []
    assert tail.decode([b"\xff"]) == []
