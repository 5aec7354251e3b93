"""Mustache over plain data: what it fills in, and that nothing of it reaches out of the data or runs without end."""

import enum
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm import mustache, templates
from llm.template_values import MAX_BYTES

REFUSED = [
    "{{> partial}}",
    "{{>partial}}",
    "{{=<% %>=}}",
    "{{=| |=}}<",
    "{{__class__}}",
    "{{_private}}",
    "{{question.__class__}}",
    "{{question._private}}",
    "{{question.__class__.__mro__}}",
    "{{#question.__init__.__globals__}}x{{/question.__init__.__globals__}}",
    "{{question[0]}}",
    "{{question!r}}",
    "{{question | upper}}",
    "{{question()}}",
    "{{que-stion}}",
    "{{a b}}",
    "{{.}}",
    "{{#.}}x{{/.}}",
    "{{..}}",
    "{{a..b}}",
    "{{a.b.c.d.e.f}}",
    "{{}}",
    "{{ }}",
    "{{{question}}",
    "{{question",
    "{{#a}}",
    "{{/a}}",
    "{{#a}}{{#b}}{{/a}}{{/b}}",
    "text {{",
    "{{% if x %}}",
    "{{\uff51uestion}}",
    "{{#a}}" * 9 + "{{/a}}" * 9,
    "{{a}}" * 2001,
]


def render(source: str, **values: Any) -> str:
    return templates.parse(source, "mustache").render(values)


@pytest.mark.parametrize("source", REFUSED, ids=range(len(REFUSED)))
def test_what_reaches_out_of_the_data_is_refused_when_it_is_read(source: str) -> None:
    with pytest.raises(ValueError, match=r"plain name|braces|not allowed|nested|tags"):
        templates.parse(source, "mustache")


@pytest.mark.parametrize(
    ("source", "values", "expected"),
    [
        ("Hi {{name}}, {{ name }}, {{{name}}}, {{&name}}!", {"name": "Ann"}, "Hi Ann, Ann, Ann, Ann!"),
        ("{{a}} {{{a}}}", {"a": '<b> & "c"'}, '<b> & "c" <b> & "c"'),
        ("{{a}}", {"a": "{{b}} {b} {{#c}}"}, "{{b}} {b} {{#c}}"),
        ("{{#items}}- {{name}}\n{{/items}}", {"items": [{"name": "x"}, {"name": "y"}]}, "- x\n- y\n"),
        ("List:\n{{#items}}\n- {{.}}\n{{/items}}\nEnd", {"items": ["x", 2]}, "List:\n- x\n- 2\nEnd"),
        ("{{#a}}yes{{/a}}{{^a}}no{{/a}}", {"a": True}, "yes"),
        ("{{#a}}yes{{/a}}{{^a}}no{{/a}}", {"a": []}, "no"),
        ("{{#a}}yes{{/a}}{{^a}}no{{/a}}", {"a": None}, "no"),
        ("{{#a}}{{b}}{{/a}}", {"a": {"b": "in"}, "b": "out"}, "in"),
        ("{{#a}}{{b}}{{/a}}", {"a": {"c": "in"}, "b": "out"}, "out"),
        ("{{a.b.0}} {{a.b.9}}{{a.x.y}}", {"a": {"b": ["first"]}}, "first "),
        ("{{a}} {{b}} {{c}}", {"a": None, "b": [1, {"k": "é"}], "c": 1.5}, ' [1, {"k": "é"}] 1.5'),
        ("a{{! a comment }}b {single}", {}, "ab {single}"),
    ],
)
def test_it_is_filled_in(source: str, values: dict[str, Any], expected: str) -> None:
    assert render(source, **values) == expected


def test_only_names_outside_of_sections_need_a_value() -> None:
    template = templates.parse("{{#items}}{{name}}{{/items}}{{^none}}{{question}}{{/none}} {{user.name}}", "mustache")

    assert template.variables == {"items", "none", "user"}
    assert template.names == {"items", "none", "user", "name", "question"}
    with pytest.raises(ValueError, match=r"'none' has no value; known: items, user"):
        template.render({"items": [], "user": {}})


class Touchy:
    """Whoever touches it is told."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return type(self)
        raise AssertionError(name)

    def __call__(self, *_: Any) -> str:
        raise AssertionError("called")

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError(key)

    def __str__(self) -> str:
        raise AssertionError("str")

    __repr__ = __iter__ = __len__ = __bool__ = __hash__ = __str__  # type: ignore[assignment]


class Loud(dict[str, Any]):
    """A dict whose own methods must not run."""

    def _raise(self, *_: Any) -> Any:
        raise AssertionError("asked")

    __getitem__ = __iter__ = __contains__ = get = items = keys = __str__ = __len__ = __bool__ = _raise  # type: ignore[assignment]


class LoudText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise AssertionError("asked")

    __repr__ = __len__ = __format__ = __str__  # type: ignore[assignment]


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize("template_format", templates.FORMATS)
def test_no_code_of_a_value_runs(template_format: str) -> None:
    template = templates.parse("{x}" if template_format == "f-string" else "{{x}}", template_format)

    for value in (Touchy(), Touchy.__init__, {"a"}, b"x", object):
        with pytest.raises(ValueError, match="can't hold"):
            template.render({"x": value})
    assert template.render({"x": [Touchy(), 1]}) == '["<Touchy>", 1]'
    assert template.render({"x": {Touchy: Touchy}}) == '{"<type>": "<type>"}'
    assert template.render({"x": Loud(a=LoudText("b"))}) == '{"a": "b"}'
    assert template.render({"x": LoudText("b")}) == "b"
    assert template.render({"x": {Level.HIGH: Level.HIGH}}) == '{"3": 3}'


def test_a_section_over_an_object_does_not_reach_it() -> None:
    assert render("{{#a}}{{#b}}{{c}}{{/b}}{{/a}}", a=[{"b": Touchy()}]) == ""
    assert render("{{a.b.real}}{{a.c.upper}}", a={"b": 1, "c": "x"}) == ""


N = list(range(1000))
EXPLOSIVE: list[tuple[str, str, dict[str, Any]]] = [
    ("mustache", "{{#a}}{{#b}}{{#c}}x{{/c}}{{/b}}{{/a}}", {"a": N, "b": N, "c": N}),
    ("mustache", "{{#a}}" * 8 + "{{/a}}" * 8, {"a": N}),
    ("mustache", "{{#a}}{{#b}}{{big}}{{/b}}{{/a}}", {"a": N, "b": N, "big": "x" * 900_000}),
    ("mustache", "{{#a}}{{big}}{{/a}}", {"a": N, "big": [{"k": 1}] * 1000}),
    ("mustache", "{{#a}}{{z.b.c.d.e}}{{/a}}" * 100, {"a": N, "z": {}}),
    ("f-string", "{q}" * 33_000, {"q": "x" * 32_000}),
    ("f-string", "{q}" * 33_000, {"q": "\u2603" * 11}),
    ("f-string", "{q}" * 33_000, {"q": [1] * 1_000_000}),
    ("f-string", "{q}", {"q": ["x" * 600_000] * 4}),
    ("f-string", "{q}", {"q": "x" * 50_000_000}),
    ("f-string", "{q}", {"q": 10**5000}),
]


@pytest.mark.parametrize(("template_format", "source", "values"), EXPLOSIVE, ids=range(len(EXPLOSIVE)))
def test_no_template_takes_long_or_makes_much(template_format: str, source: str, values: dict[str, Any]) -> None:
    template = templates.parse(source, template_format)
    began = time.process_time()
    with pytest.raises(ValueError, match=r"steps|bytes|characters|digits"):
        template.render(values)
    # About 50 ms of a core; the rest is room for a machine that does other things.
    assert time.process_time() - began < 0.5


def test_a_value_is_only_so_long_also_where_little_of_it_is_used() -> None:
    with pytest.raises(ValueError, match="'a' has more than 1000000 characters"):
        render("{{a.b}}", a={"b": 1, "c": ["x" * 500_001, {"y" * 500_000: 1}]})


def test_a_value_is_nested_only_so_deep() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    circle: list[Any] = []
    circle.append(circle)
    for value in (deep, circle):
        with pytest.raises(ValueError, match="nested"):
            render("{{a}}", a=value)


TAGS = "{{a}}~{{#a}}~{{/a}}~{{^b}}~{{/b}}~{{.}}~{{a.b}}~{{> a}}~{{=[ ]=}}~{{{~}}}~{{~}}~__class__~[a]"
PIECES = st.sampled_from([*re.split("~", TAGS), *"#/^&>=!.ab_0 \n\u2603\ud800"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "0"]), inner, max_size=3),
    max_leaves=15,
)


@given(st.lists(PIECES, max_size=25).map("".join), JSON, JSON)
def test_any_source_and_any_data_end_well_or_in_a_value_error(source: str, a: Any, b: Any) -> None:
    try:
        template = templates.parse(source, "mustache")
        assert all(templates.is_plain_name(name) for name in template.names)
        rendered = template.render({"a": a, "b": b})
    except ValueError:
        return
    assert len(rendered.encode("utf-8", "surrogatepass")) <= MAX_BYTES


@given(st.text(max_size=40))
def test_a_value_is_never_read_as_a_template(text: str) -> None:
    for value in (text, "{{secret}}" + text, "{secret}{{{secret}}}"):
        assert render("{{x}}|{{#list}}{{.}}{{/list}}", x=value, list=[value], secret="s3cret") == f"{value}|{value}"


@given(st.lists(PIECES, max_size=12).map("".join))
def test_the_template_without_escaping_means_the_same(source: str) -> None:
    try:
        template = templates.parse(source, "mustache")
        other = templates.parse(mustache.unescaped(source), "mustache")
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            templates.parse(source, "mustache")
        return
    assert template == other
