"""Prompts as data."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from llm import prompts

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
    ],
)
def test_messages_are_rendered_in_every_accepted_form(messages: list[dict[str, Any]]) -> None:
    rendered = prompts.parse_messages(messages).render({"tone": "kind", "history": HISTORY, "question": "now?"})

    assert rendered == [SystemMessage("Be kind."), *HISTORY, HumanMessage("now?")]


def test_a_text_is_one_user_message() -> None:
    stored = {"langchain_type": "PromptTemplate", "template": "Say {question}", "input_variables": ["question"]}

    assert prompts.parse_stored(stored).render({"question": "hi"}) == [HumanMessage("Say hi")]


@pytest.mark.parametrize(
    ("stored", "fault"),
    [
        ({}, "langchain_type"),
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
