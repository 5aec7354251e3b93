"""Templates come from the database: plain names, and nothing that reaches into an object."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm import templates

ATTACKS = [
    "{question.password}",
    "{question[0]}",
    "{question.__class__.__mro__}",
    "{__class__}",
    "{_private}",
    "{question!r}",
    "{question!s}",
    "{question:>50000000}",
    "{question:{width}}",
    "{question:{width.real}}",
    "{}",
    "{0}",
    "{0.__init__.__globals__}",
    "{question }",
    "{ question}",
    "{que-stion}",
    "{{{question.x}}}",
    "{'a'.__class__}",
    "{question or 1}",
    "{\uff51uestion}",
    "{question",
    "question}",
    "{question!}",
    "{question\n}",
]


@pytest.mark.parametrize("source", ATTACKS)
def test_anything_but_a_plain_name_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"plain name|braces|conversion"):
        templates.parse(source)


def test_jinja_and_mustache_are_plain_text_or_refused() -> None:
    assert templates.parse("{{ question }}").render({}) == "{ question }"
    with pytest.raises(ValueError, match="plain name"):
        templates.parse("{% if question %}")


def test_names_are_filled_in_and_braces_of_values_stay() -> None:
    template = templates.parse("{{q}}: {question} / {n}")

    assert template.variables == {"question", "n"}
    assert template.render({"question": "{n} {question.x}", "n": 3}) == "{q}: {n} {question.x} / 3"


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(ValueError, match=r"'tone' has no value; known: question"):
        templates.parse("{question} {tone}").render({"question": "x"})


class Secret:
    def __str__(self) -> str:
        raise AssertionError("must not be asked")

    __repr__ = __str__


@pytest.mark.parametrize("value", [Secret(), {"a"}, b"bytes", object])
def test_an_object_is_no_value(value: Any) -> None:
    with pytest.raises(ValueError, match="can't hold"):
        templates.parse("{question}").render({"question": value})


def test_an_object_inside_a_list_is_named_and_not_asked() -> None:
    assert templates.parse("{items}").render({"items": [1, Secret()]}) == '[1, "<Secret>"]'


def test_a_template_has_a_largest_size() -> None:
    with pytest.raises(ValueError, match="100000"):
        templates.parse("x" * 100_001)


@given(st.text(alphabet="{}[]!:._ abc09\n'\"%()", max_size=60))
def test_any_source_parses_to_plain_names_or_is_refused(source: str) -> None:
    try:
        template = templates.parse(source)
    except ValueError:
        return
    assert all(name.isidentifier() and not name.startswith("_") for name in template.variables)
    rendered = template.render(dict.fromkeys(template.variables, "{x}"))
    assert len(rendered) <= 4 * len(source)


@given(st.text(max_size=80))
def test_escaped_text_comes_out_as_it_was(text: str) -> None:
    assert templates.parse(text.replace("{", "{{").replace("}", "}}")).render({}) == text
