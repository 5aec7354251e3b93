"""A Redis tail is either the right view or is seen not to be: damaged in any way, it is refused, never served wrong."""

from hypothesis import assume, given
from hypothesis import strategies as st

from memory.stores import tail
from memory.truth import Row

ROWS = st.lists(st.integers(1, 60), unique=True, max_size=30).map(
    lambda orders: [Row(order, "USER", f"m{order}", order) for order in sorted(orders)]
)


def built(rows, before_order, limit):
    """The tail as the store builds it for a question at `before_order`."""
    kept = [row for row in rows if row.order < before_order][-limit:]
    return kept, tail.build(kept, before_order=before_order, whole=len(kept) < limit)


@given(ROWS, st.integers(1, 70), st.integers(1, 35))
def test_a_tail_gives_back_the_rows_it_was_built_from(rows, before_order, limit):
    kept, entries = built(rows, before_order, limit)
    entries = tail.decode([tail.encode(entry) for entry in entries])
    view = tail.view(entries, limit=limit, before_order=before_order)
    assert [entry.order for entry in view] == [row.order for row in kept]


@given(ROWS, st.integers(2, 70), st.integers(1, 35), st.data())
def test_a_tail_without_one_of_its_entries_shows_no_gap(rows, before_order, limit, data):
    kept, entries = built(rows, before_order, limit)
    assume(entries)
    lost = data.draw(st.integers(0, len(entries) - 1))
    view = tail.view(entries[:lost] + entries[lost + 1 :], limit=limit, before_order=before_order)
    assert view is None or [entry.order for entry in view] == [row.order for row in kept]


@given(ROWS, st.integers(2, 70), st.integers(1, 35), st.data())
def test_a_tail_with_an_entry_twice_is_refused(rows, before_order, limit, data):
    _, entries = built(rows, before_order, limit)
    assume(entries)
    twice = data.draw(st.integers(0, len(entries) - 1))
    assume(entries[twice].since != tail.BEGINNING or entries[twice].order > 0)
    assert tail.view([*entries[: twice + 1], *entries[twice:]], limit=limit, before_order=before_order) is None


@given(ROWS, st.integers(1, 70), st.integers(1, 70), st.integers(1, 35))
def test_a_tail_for_another_question_is_refused(rows, before_order, asked, limit):
    assume(asked != before_order)
    _, entries = built(rows, before_order, limit)
    assert tail.view(entries, limit=limit, before_order=asked) is None


@given(ROWS, st.integers(1, 70), st.integers(1, 10), st.integers(1, 35))
def test_a_tail_that_is_too_short_is_refused(rows, before_order, held, limit):
    _, entries = built(rows, before_order, held)
    wanted, _ = built(rows, before_order, limit)
    view = tail.view(entries, limit=limit, before_order=before_order)
    assert view is None or [entry.order for entry in view] == [row.order for row in wanted]


def test_what_is_not_ours_reads_as_no_tail():
    assert tail.decode([b"[1,2]"]) == []
    assert tail.decode([b"\xff"]) == []
