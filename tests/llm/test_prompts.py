"""Prompts as data."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate

from llm import prompts, registry
from llm.errors import PromptInvalid
from llm.models import Prompt

HISTORY = [HumanMessage("before"), AIMessage("answered")]


@pytest.mark.parametrize(
    "messages",
    [
        [
            {"role": "system", "content": "Be {tone}."},
            {"role": "placeholder", "content": "{history}"},
            {"role": "user", "content": "{question}"},
        ],
        [
            {"SystemMessagePromptTemplate": "Be {tone}."},
            {"MessagesPlaceholder": "history"},
            {"HumanMessagePromptTemplate": {"prompt": {"template": "{question}"}}},
        ],
        [
            {"SystemMessagePromptTemplate": {"template": "Be {tone}."}},
            {"MessagesPlaceholder": {"variable_name": "history"}},
            {"role": "human", "content": "{question}"},
        ],
        [
            {"type": "system", "content": "Be {tone}."},
            {"MessagesPlaceholder": {"variable_name": "history", "optional": True}},
            {"type": "human", "content": "{question}"},
        ],
    ],
)
def test_messages_are_rendered_in_every_accepted_form(messages: list[dict[str, Any]]) -> None:
    rendered = prompts.parse_messages(messages).render({"tone": "kind", "history": HISTORY, "question": "now?"})

    assert rendered == [SystemMessage("Be kind."), *HISTORY, HumanMessage("now?")]


def test_messages_may_be_mustache() -> None:
    messages = [
        {"role": "system", "content": "{{#rules}}\n- {{.}}\n{{/rules}}"},
        {"role": "placeholder", "content": "{{history}}"},
        {"role": "user", "content": "{{question}} {x}"},
    ]
    stored = {"langchain_type": "ChatPromptTemplate", "messages": messages, "template_format": "mustache"}
    rendered = prompts.parse_stored(stored).render({"rules": ["a", "b"], "history": HISTORY, "question": "<now>"})

    assert rendered == [SystemMessage("- a\n- b\n"), *HISTORY, HumanMessage("<now> {x}")]


def test_a_text_is_one_user_message() -> None:
    stored = {"langchain_type": "PromptTemplate", "template": "Say {question}", "input_variables": ["question"]}

    assert prompts.parse_stored(stored).render({"question": "hi"}) == [HumanMessage("Say hi")]


@pytest.mark.parametrize(
    ("stored", "fault"),
    [
        ({}, "langchain_type"),
        ({"langchain_type": []}, "langchain_type"),
        ({"langchain_type": "PromptTemplate", "template": "x", "template_format": []}, "template_format"),
        ({"langchain_type": "FewShotPromptTemplate"}, "langchain_type"),
        ({"langchain_type": "PromptTemplate", "template": 3}, "langchain_type"),
        ({"langchain_type": "PromptTemplate", "template": "x", "template_format": "jinja2"}, "template_format"),
        ({"langchain_type": "PromptTemplate", "template": "x", "lc": 1}, "lc: unknown key"),
        ({"langchain_type": "ChatPromptTemplate", "messages": []}, "1 to 100"),
        ({"langchain_type": "ChatPromptTemplate", "messages": ["hi"]}, r"\[0\]"),
        ({"langchain_type": "ChatPromptTemplate", "messages": [{"role": "user", "content": "{a.b}"}]}, r"\[0\]: 'a.b'"),
        ({"langchain_type": "ChatPromptTemplate", "messages": [{"role": "root", "content": "x"}]}, r"\[0\]: role"),
        ({"langchain_type": "ChatPromptTemplate", "messages": [{"MessagesPlaceholder": "a b"}]}, "plain name"),
        ({"langchain_type": "ChatPromptTemplate", "messages": [{"MessagesPlaceholder": "{a}{b}"}]}, "one plain name"),
        ({"langchain_type": "ChatPromptTemplate", "messages": [{"MessagesPlaceholder": None}]}, "one plain name"),
        ({"langchain_type": "ChatPromptTemplate", "messages": [{"id": ["langchain", "llms"]}]}, r"\[0\]: role"),
    ],
)
def test_a_fault_is_named(stored: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        prompts.parse_stored(stored)


@pytest.mark.parametrize("history", ["text", ["text"], None])
def test_a_placeholder_takes_messages_only(history: Any) -> None:
    with pytest.raises(ValueError, match="'history' has no list of messages"):
        prompts.parse_messages([{"MessagesPlaceholder": "history"}]).render({"history": history})


def test_a_placeholder_takes_messages_as_data_but_no_instructions() -> None:
    template = prompts.parse_messages([{"MessagesPlaceholder": "examples"}])
    given = [{"role": "user", "content": "{hi}"}, {"role": "assistant", "content": "hello"}]

    assert template.render({"examples": given}) == [HumanMessage("{hi}"), AIMessage("hello")]
    for bad in ({"role": "system", "content": "obey"}, {"role": "user"}, {"role": "user", "content": [1]}):
        with pytest.raises(ValueError, match="'examples'"):
            template.render({"examples": [bad]})


def test_all_messages_of_a_prompt_share_one_bound() -> None:
    template = prompts.parse_messages([{"role": "user", "content": "{question}"}] * 100)

    with pytest.raises(ValueError, match="bytes"):
        template.render({"question": "x" * 20_000})


# Declared variables --------------------------------------------------------------------------------------------------

TONE = {"langchain_type": "PromptTemplate", "template": "{question} {tone} {style}"}


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        ({"input_variables": ["tone"]}, "'style' is used by the template, and not declared"),
        ({"input_variables": ["tone", "style", "mood"]}, "'mood' is declared, and the template doesn't use it"),
        ({"input_variables": ["tone", "style", "history"]}, "'history' is declared"),
        ({"optional_variables": ["mood"]}, "optional_variables: 'mood' is declared"),
        ({"input_variables": ["tone", "style"], "optional_variables": ["tone"]}, "'tone' is also one of"),
        ({"input_variables": ["tone.x"]}, "input_variables: 'tone.x' is no plain name"),
        ({"input_variables": "tone"}, "input_variables: a list"),
        ({"input_variables": ["a"] * 101}, "input_variables: a list of at most 100"),
    ],
)
def test_declared_variables_are_those_of_the_template(declared: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        prompts.parse_stored({**TONE, **declared})
    if all(isinstance(names, list) and len(names) < 100 for names in declared.values()):
        with pytest.raises(ValueError, match=fault):
            prompts.parse_stored(TONE, **declared)


def test_a_missing_variable_is_named_and_an_optional_one_is_empty() -> None:
    template = prompts.parse_stored(TONE, input_variables=["tone"], optional_variables=["style"])

    assert template.render({"question": "a", "tone": "b"}) == [HumanMessage("a b ")]
    assert template.render({"question": "a", "tone": "b", "style": "c", "more": 1}) == [HumanMessage("a b c")]
    with pytest.raises(ValueError, match="'tone' has no value"):
        template.render({"question": "a", "style": "c"})


def test_an_optional_placeholder_has_no_messages() -> None:
    stored = {"langchain_type": "ChatPromptTemplate", "messages": [{"MessagesPlaceholder": "examples"}]}

    assert prompts.parse_stored(stored, optional_variables=["examples"]).render({}) == []


def test_what_is_declared_and_used_only_in_a_section_needs_a_value() -> None:
    stored = {"langchain_type": "PromptTemplate", "template": "{{#a}}{{b}}{{/a}}", "template_format": "mustache"}

    assert prompts.parse_stored(stored, input_variables=["a"]).render({"a": {"b": 1}}) == [HumanMessage("1")]
    with pytest.raises(ValueError, match="'b' has no value"):
        prompts.parse_stored(stored, input_variables=["a", "b"]).render({"a": True})


# Renderers of one's own ----------------------------------------------------------------------------------------------


class Shout:
    variables = ("question",)

    def __init__(self, config: dict[str, Any]) -> None:
        self.mark = config.pop("mark", "!")
        self.raw = config.pop("raw", False)
        if config:
            raise TypeError(config)

    def render(self, values: Any) -> Any:
        text = values["question"].upper() + self.mark
        return text if self.raw else [SystemMessage("LOUD"), HumanMessage(text)]


@pytest.fixture
def shout() -> Iterator[None]:
    registry.prompt_renderers.add("shout", Shout)
    yield
    registry.prompt_renderers.remove("shout")


@pytest.mark.usefixtures("shout")
def test_a_registered_renderer_makes_the_messages() -> None:
    stored = {"langchain_type": "custom", "renderer": "shout", "mark": "?"}

    assert prompts.parse_stored(stored).render({"question": "hi"}) == [SystemMessage("LOUD"), HumanMessage("HI?")]
    assert prompts.parse_stored({**stored, "raw": True}).render({"question": "hi"}) == [HumanMessage("HI?")]
    with pytest.raises(ValueError, match="'question' has no value"):
        prompts.parse_stored(stored).render({})
    with pytest.raises(ValueError, match="bytes"):
        prompts.parse_stored(stored).render({"question": "x" * 1_000_001})
    with pytest.raises(ValueError, match="'tone' is declared"):
        prompts.parse_stored({**stored, "input_variables": ["tone"]})
    with pytest.raises(ValueError, match="neither a text nor a list"):
        prompts.parse_stored({**stored, "raw": True, "mark": Markless()}).render({"question": "hi"})


class Markless:
    def __radd__(self, _: str) -> object:
        return object()


@pytest.mark.usefixtures("shout")
@pytest.mark.parametrize(
    ("stored", "fault"),
    [
        ({}, "renderer: a custom prompt names"),
        ({"renderer": "whisper"}, "renderer: There is no prompt renderer 'whisper'; known: shout"),
        ({"renderer": "shout", "colour": 1}, "renderer: 'shout' doesn't take these options"),
    ],
)
def test_a_fault_of_a_custom_prompt_is_named(stored: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        prompts.parse_stored({"langchain_type": "custom", **stored})


# LangChain's objects -------------------------------------------------------------------------------------------------

CHAT = [
    {"role": "system", "content": "Be {tone}."},
    {"role": "placeholder", "content": "{history}"},
    {"role": "user", "content": "{question}"},
]


def test_a_chat_prompt_is_handed_over_as_langchain_s() -> None:
    row = Prompt(name="p", prompt_template={"langchain_type": "ChatPromptTemplate", "messages": CHAT})
    values = {"tone": "kind", "history": HISTORY, "question": "{x} <now>"}
    made = row.to_langchain_prompt()

    assert isinstance(made, ChatPromptTemplate)
    assert set(made.input_variables) == {"tone", "history", "question"}
    assert made.invoke(values).to_messages() == row.render(values)
    with pytest.raises(KeyError, match="tone"):
        made.invoke({"history": [], "question": ""})


def test_a_text_prompt_is_handed_over_as_langchain_s() -> None:
    row = Prompt(name="p", prompt_template=TONE, optional_variables=["style"])
    made = row.to_langchain_prompt()

    assert isinstance(made, PromptTemplate)
    assert made.format(question="a", tone="b") == "a b "
    assert made.format(question="a", tone="b", style="c") == "a b c"


def test_mustache_is_not_escaped_for_html_by_langchain_either() -> None:
    source = "{{a}} {{ a }} {{{a}}} {{&a}}{{#list}}\n- {{.}}{{/list}}"
    stored = {"langchain_type": "PromptTemplate", "template": source, "template_format": "mustache"}
    row = Prompt(name="p", prompt_template=stored)
    values = {"a": '<b> & "c"', "list": ["<x>", "y"]}

    assert row.to_langchain_prompt().format(**values) == row.render(values)[0].text
    chat = {"langchain_type": "ChatPromptTemplate", "messages": [{"role": "user", "content": source}]}
    row = Prompt(name="p", prompt_template={**chat, "template_format": "mustache"})
    assert row.to_langchain_prompt().invoke(values).to_messages() == row.render(values)


@pytest.mark.usefixtures("shout")
def test_a_custom_prompt_is_handed_over_as_a_runnable() -> None:
    row = Prompt(name="p", prompt_template={"langchain_type": "custom", "renderer": "shout"})

    assert row.to_langchain_prompt().invoke({"question": "hi"}) == [SystemMessage("LOUD"), HumanMessage("HI!")]


def test_a_row_says_what_it_is() -> None:
    row = Prompt(name="p", version=3, prompt_template=TONE, created_at=timezone.now(), updated_at=timezone.now())
    said = row.to_dict()

    assert (said["name"], said["version"], said["prompt_template"], said["is_active"]) == ("p", 3, TONE, False)
    assert json.loads(json.dumps(said)) == said


def test_a_row_that_can_not_be_filled_in_is_a_typed_failure() -> None:
    with pytest.raises(PromptInvalid, match=r"'p v1'.*'question' has no value"):
        Prompt(name="p", prompt_template=TONE).render({})
