"""Marks: only those of passages in the prompt stay, however the answer is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.citations import Marks, cited

HITS = [{"n": 1, "id": "a"}, {"n": 2, "id": "b"}]


def read(*pieces: str) -> str:
    marks = Marks()
    marks.know(HITS)
    return "".join([*(marks.feed(piece) for piece in pieces), marks.rest()])


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("24 months [1].", "24 months [1]."),
        ("24 months [7].", "24 months."),
        ("24 months[7] long", "24 months long"),
        ("both [1, 2] and [1,9] and [8, 9]!", "both [1, 2] and [1] and!"),
        ("[1][2][3]", "[1][2]"),
        ("`row[7]` and ```\na[9]\n``` but [9]", "`row[7]` and ```\na[9]\n``` but"),
        (
            "a link [7](https://example.org) and a note [9]: text",
            "a link [7](https://example.org) and a note [9]: text",
        ),
        ("a list [a] [12345] [] [", "a list [a] [12345] [] ["),
        ("ends in a space ", "ends in a space "),
    ],
)
def test_unknown_marks_are_dropped_and_all_else_stays(answer, shown):
    assert read(answer) == shown
    assert read(*answer) == shown


@given(st.text("ab [],12379`(:\n", max_size=60), st.lists(st.integers(1, 7), max_size=30))
def test_the_cut_makes_no_difference(answer, lengths):
    pieces, at = [], 0
    for length in lengths:
        pieces.append(answer[at : at + length])
        at += length
    assert read(*pieces, answer[at:]) == read(answer)


def test_nothing_is_touched_while_there_are_no_passages():
    assert not Marks().active


def test_a_source_says_whether_it_is_cited():
    assert [hit["cited"] for hit in cited("It lasts 24 months [2, 5].", HITS)] == [False, True]
