"""The windows are pure: for every list they keep its end, whole or from a human turn on."""

from itertools import dropwhile

from hypothesis import given
from hypothesis import strategies as st

from memory.messages import message
from memory.windows import buffer, window

TALKS = st.lists(st.sampled_from(["USER", "ASSISTANT"]), max_size=40).map(
    lambda roles: [message(order, role, f"m{order}") for order, role in enumerate(roles, start=1)]
)
LIMITS = st.integers(1, 45)


@given(TALKS, LIMITS)
def test_a_window_is_the_end_of_the_conversation_within_its_limit(talk, limit):
    kept = window(talk, limit=limit)
    assert len(kept) <= limit
    assert kept == talk[len(talk) - len(kept) :]


@given(TALKS, LIMITS)
def test_a_window_opens_with_the_first_human_turn_that_fits(talk, limit):
    kept = window(talk, limit=limit)
    dropped = talk[max(0, len(talk) - limit) : len(talk) - len(kept)]
    assert not kept or kept[0].type == "human"
    assert all(each.type != "human" for each in dropped)


@given(TALKS, LIMITS)
def test_a_buffer_keeps_everything_from_the_first_question_on_until_it_is_full(talk, limit):
    kept = buffer(talk, limit=limit)
    assert kept == window(talk, limit=limit)
    if len(talk) <= limit:
        assert kept == list(dropwhile(lambda each: each.type != "human", talk))


@given(TALKS, LIMITS)
def test_reading_only_the_last_rows_makes_no_difference(talk, limit):
    assert window(talk[-limit:], limit=limit) == window(talk, limit=limit)
    assert buffer(talk[-(limit + 1) :], limit=limit) == buffer(talk, limit=limit)


@given(TALKS, LIMITS)
def test_windowing_twice_is_windowing_once_and_leaves_the_list_alone(talk, limit):
    before = list(talk)
    once = window(talk, limit=limit)
    assert window(once, limit=limit) == once
    assert talk == before
