"""Passages are verbatim pieces at the right place, and nothing of a text is lost between them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorstore.splitting import split, title_of

TEXTS = st.text(alphabet=st.sampled_from("ab c.\n\n#`*-_🙂é"), max_size=400)


@given(TEXTS, st.booleans(), st.integers(4, 60), st.integers(0, 40))
def test_every_passage_stands_where_it_says(text, markdown, size, overlap):
    passages = split(text, markdown=markdown, size=size, overlap=overlap)
    assert all(text[each.start : each.end] == each.text for each in passages)
    assert all(0 < len(each.text) <= size for each in passages)
    assert [each.end for each in passages] == sorted({each.end for each in passages})


@given(TEXTS, st.booleans(), st.integers(4, 60), st.integers(0, 40))
def test_no_word_is_left_out(text, markdown, size, overlap):
    covered = {
        at for each in split(text, markdown=markdown, size=size, overlap=overlap) for at in range(each.start, each.end)
    }
    assert [at for at, character in enumerate(text) if not character.isspace() and at not in covered] == []


@given(st.lists(st.sampled_from(["same words", "other words"]), min_size=5, max_size=40))
def test_a_text_that_repeats_itself_is_not_mistaken_for_its_earlier_part(lines):
    text = "\n".join(lines)
    passages = split(text, markdown=False, size=25, overlap=0)
    assert all(left.end <= right.start for left, right in itertools.pairwise(passages))


def test_neighbours_overlap_at_the_start_of_a_word():
    text = " ".join(f"word{n}" for n in range(100))
    passages = split(text, markdown=False, size=100, overlap=30)
    for left, right in itertools.pairwise(passages):
        assert 0 < left.end - right.start <= 30
        assert right.text.startswith("word")


def test_headings_lead_to_a_passage():
    text = "Preface.\n\n# Manual\n\n## Care ##\n\n### Daily\nRinse.\n\n## Repair\n\nCall us.\n\n# Index"
    assert [
        (each.headings, each.text.splitlines()[-1]) for each in split(text, markdown=True, size=700, overlap=80)
    ] == [
        ((), "Preface."),
        (("Manual", "Care", "Daily"), "Rinse."),
        (("Manual", "Repair"), "Call us."),
        (("Index",), "# Index"),
    ]


def test_a_hash_in_a_code_block_is_no_heading():
    text = "# Shell\n\n```\n# a comment\n```\n\nDone.\n\n~~~\n# never closed"
    (passage,) = split(text, markdown=True, size=700, overlap=80)
    assert passage.headings == ("Shell",)
    assert title_of("```\n# no\n```\n# Yes") == "Yes"


def test_plain_text_knows_no_headings():
    (passage,) = split("# not a heading", markdown=False, size=700, overlap=80)
    assert passage.headings == ()


@pytest.mark.parametrize("text", ["x" * 200_000, "# " * 100_000, "```\n" * 50_000, "\n" * 200_000, "# a\n" * 50_000])
def test_hostile_shapes_take_no_unreasonable_time(text):
    split(text, markdown=True, size=700, overlap=80)
