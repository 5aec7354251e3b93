"""Marks: only those of passages in the prompt stay, however the answer is cut into pieces."""

from typing import Literal
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm import workflows
from llm.citations import Marks, cited
from llm.events import Output, Sources, Text
from llm.registry import workflow_steps
from llm.state import WorkflowInput
from llm.steps.base import Step

LAST = {"type": "parser", "parser": "regex", "options": {"pattern": r"\[(?P<last>7)\]"}}
HITS = [{"n": 1, "id": "a"}, {"n": 2, "id": "b"}]


def read(*pieces: str) -> str:
    marks = Marks(HITS)
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


def test_a_source_says_whether_it_is_cited():
    assert [hit["cited"] for hit in cited("It lasts 24 months [2, 5].", HITS)] == [False, True]


@pytest.fixture
def found():
    """A step that finds the two passages."""

    class FoundStep(Step):
        type: Literal["found"] = "found"

        async def run(self, state):
            state.passages = list(HITS)
            yield Sources(tuple(HITS))

    workflow_steps.add("found", FoundStep)
    yield
    workflow_steps.remove("found")


@pytest.mark.parametrize(
    ("steps", "shown", "value"),
    [
        ([], "It is so [1], not.", "It is so [1], not."),
        # Nothing was found, so nothing is a mark.
        (None, "It is so [1], not [7].", "It is so [1], not [7]."),
        # What a parser reads is what the model said.
        (
            [{"type": "parser", "parser": "regex", "options": {"pattern": r"\[(?P<last>7)\]"}}],
            "It is so [1], not.",
            {"last": "7"},
        ),
    ],
)
async def test_a_run_shows_resolved_marks_and_comes_to_them(configure, found, steps, shown, value):
    configure(default={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"answers": ["It is so [1], not [7]."]}})
    definition = [*([{"type": "found"}] if steps is not None else []), {"type": "llm"}, *(steps or [])]
    run = workflows.stream(definition, WorkflowInput(uuid4(), None, None, "is it so?"))
    events = [event async for event in run]
    assert "".join(event.text for event in events if isinstance(event, Text)) == shown
    assert events[-1] == Output(value)
