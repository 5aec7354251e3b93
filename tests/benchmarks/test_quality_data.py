"""The questions of the benchmark `quality` can be answered: each quote stands once in its tale."""

import json

import pytest

from benchmarks.tales import DATA, tales

TALES = {tale.name: " ".join(tale.text.split()) for tale in tales()}
QUESTIONS = json.loads((DATA / "questions.json").read_text())


def test_every_tale_is_asked_about():
    assert {question["document"] for question in QUESTIONS} == set(TALES)


def test_no_question_is_asked_twice():
    assert len({question["question"] for question in QUESTIONS}) == len(QUESTIONS) == 120


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["question"])
def test_the_quote_stands_once_in_its_tale(question):
    assert TALES[question["document"]].count(question["quote"]) == 1
