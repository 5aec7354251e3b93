"""Prompts as data, to lists of messages.

A prompt is text (one user message) or a list of messages. Accepted for each message:

    {"role": "system" | "user" | "assistant", "content": "… {question}"}      ("human" and "ai" too)
    {"role": "placeholder", "content": "{history}"}                           a list of messages in this place
    {"MessagesPlaceholder": "history"}, {"SystemMessagePromptTemplate": "…"}, {"HumanMessagePromptTemplate": "…"},
    {"AIMessagePromptTemplate": "…"}                                          LangChain's names, as templates are stored
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from llm import templates
from llm.templates import Template

MAX_MESSAGES = 100
_ROLES: dict[str, type[BaseMessage]] = {
    "system": SystemMessage,
    "user": HumanMessage,
    "human": HumanMessage,
    "assistant": AIMessage,
    "ai": AIMessage,
}
_LANGCHAIN_ROLES = {
    "SystemMessagePromptTemplate": "system",
    "HumanMessagePromptTemplate": "user",
    "AIMessagePromptTemplate": "assistant",
}


class _Part(Protocol):
    def render(self, values: Mapping[str, Any]) -> list[BaseMessage]: ...


@dataclass(frozen=True, slots=True)
class _Message:
    kind: type[BaseMessage]
    template: Template

    def render(self, values: Mapping[str, Any]) -> list[BaseMessage]:
        return [self.kind(content=self.template.render(values))]


@dataclass(frozen=True, slots=True)
class _Placeholder:
    name: str

    def render(self, values: Mapping[str, Any]) -> list[BaseMessage]:
        messages = values.get(self.name)
        if not isinstance(messages, list) or not all(isinstance(message, BaseMessage) for message in messages):
            raise ValueError(f"the placeholder {self.name!r} has no list of messages")
        return messages


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    parts: tuple[_Part, ...]

    def render(self, values: Mapping[str, Any]) -> list[BaseMessage]:
        """The messages. Raises ValueError that names the variable at fault."""
        return [message for part in self.parts for message in part.render(values)]


def parse_text(source: str) -> ChatTemplate:
    """A text prompt: one user message. Raises ValueError."""
    return ChatTemplate((_Message(HumanMessage, templates.parse(source)),))


def parse_messages(messages: Sequence[Mapping[str, Any]]) -> ChatTemplate:
    """Raises ValueError that begins with the index of the message at fault."""
    if not 0 < len(messages) <= MAX_MESSAGES:
        raise ValueError(f"a prompt has 1 to {MAX_MESSAGES} messages, this one has {len(messages)}")
    return ChatTemplate(tuple(_at(f"[{index}]", message) for index, message in enumerate(messages)))


def parse_stored(stored: Mapping[str, Any]) -> ChatTemplate:
    """A stored template: `langchain_type` says which kind. Raises ValueError that names the key at fault."""
    kind = stored.get("langchain_type")
    if stored.get("template_format", "f-string") != "f-string":
        raise ValueError("template_format: only 'f-string' (plain names in braces) is supported")
    known = {"langchain_type", "template_format", "input_variables", "template", "messages"}
    if unknown := sorted(set(stored) - known):
        raise ValueError(f"{unknown[0]}: unknown key; known: {', '.join(sorted(known))}")
    if kind == "PromptTemplate" and isinstance(stored.get("template"), str):
        return parse_text(stored["template"])
    if kind == "ChatPromptTemplate" and isinstance(stored.get("messages"), list):
        return parse_messages(stored["messages"])
    raise ValueError("langchain_type: 'PromptTemplate' with a 'template' text, or 'ChatPromptTemplate' with 'messages'")


def _at(where: str, message: Any) -> _Part:
    if not isinstance(message, Mapping):
        raise ValueError(f"{where}: a message is an object with 'role' and 'content'")  # noqa: TRY004  it is bad data
    try:
        return _part(message)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _part(message: Mapping[str, Any]) -> _Part:
    if set(message) == {"role", "content"}:
        role, content = message["role"], message["content"]
    elif len(message) == 1:
        ((name, content),) = message.items()
        role = "placeholder" if name == "MessagesPlaceholder" else _LANGCHAIN_ROLES.get(name)
        if role != "placeholder":
            content = _inner(content)
    else:
        raise ValueError("a message has 'role' and 'content', or one of LangChain's template names")
    if role == "placeholder":
        return _Placeholder(_placeholder_name(content))
    if role not in _ROLES or not isinstance(content, str):
        raise ValueError(f"role: one of {', '.join([*_ROLES, 'placeholder'])}, with a text as content")
    return _Message(_ROLES[role], templates.parse(content))


def _inner(content: Any) -> Any:
    """LangChain nests a message template's text: {"prompt": {"template": "…"}}."""
    for key in ("prompt", "template"):
        if isinstance(content, Mapping) and key in content:
            content = content[key]
    return content


def _placeholder_name(content: Any) -> str:
    if isinstance(content, Mapping):
        content = content.get("variable_name")
    template = templates.parse(content if isinstance(content, str) else "")
    if len(template.parts) != 1:
        raise ValueError("a placeholder is one name, as in '{history}'")
    literal, name = template.parts[0]
    if bool(literal) == bool(name):
        raise ValueError("a placeholder is one name, as in '{history}'")
    return name or templates.parse(f"{{{literal}}}").parts[0][1]
