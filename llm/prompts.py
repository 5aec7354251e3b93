"""Prompts as data, to lists of messages.

A prompt is text (one user message), a list of messages, or what a registered renderer makes. A message is one of

    {"role": "system" | "user" | "assistant", "content": "… {question}"}      ("human" and "ai" too; "type" for "role")
    {"role": "placeholder", "content": "{history}"}                           a list of messages in this place
    {"MessagesPlaceholder": "history"}, {"SystemMessagePromptTemplate": "…"}, {"HumanMessagePromptTemplate": "…"},
    {"AIMessagePromptTemplate": "…"}                                          LangChain's names, as templates are stored
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from kernel.caches import Cache
from kernel.errors import Misconfigured
from llm import templates
from llm.registry import prompt_renderers
from llm.template_values import Work
from llm.templates import Template

if TYPE_CHECKING:
    from llm.configuration import PromptVersion

MAX_MESSAGES = 100
MAX_VARIABLES = 100
#: Every prompt has these without declaring them; `passages` and `context` are texts, `history` is a list of messages.
BUILT_IN = frozenset({"question", "input", "passages", "context", "history"})
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
_COMMON = {"langchain_type", "input_variables", "optional_variables"}
#: What a stored template has beside `langchain_type` and the declared variables; a custom one also its own.
KEYS = {
    "PromptTemplate": {"template", "template_format"},
    "ChatPromptTemplate": {"messages", "template_format"},
    "custom": {"renderer"},
}
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}|\{(\w+)\}|(\w+)")


class Part(Protocol):
    """A piece of a prompt: one message, or several."""

    @property
    def variables(self) -> frozenset[str]: ...

    @property
    def names(self) -> frozenset[str]: ...

    def render(self, values: Mapping[str, Any], work: Work) -> list[BaseMessage]: ...


class Renderer(Protocol):
    """What a factory of llm.registry.prompt_renderers returns, given the options of a "custom" prompt."""

    #: The names that it needs values of.
    variables: Collection[str]

    def render(self, values: Mapping[str, Any]) -> list[BaseMessage] | str:
        """The messages, or the text of one user message. Raises ValueError that names the variable at fault."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message with a template as its text."""

    role: str
    source: str
    template: Template

    @property
    def variables(self) -> frozenset[str]:
        return self.template.variables

    @property
    def names(self) -> frozenset[str]:
        return self.template.names

    def render(self, values: Mapping[str, Any], work: Work) -> list[BaseMessage]:
        return [_ROLES[self.role](content=self.template.render(values, work))]


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A list of messages; also of `{"role": "user" | "assistant", "content"}`, so that callers can give one."""

    name: str

    @property
    def variables(self) -> frozenset[str]:
        return frozenset({self.name})

    @property
    def names(self) -> frozenset[str]:
        return self.variables

    def render(self, values: Mapping[str, Any], work: Work) -> list[BaseMessage]:
        messages = templates.value_of(self.name, values)
        if not isinstance(messages, list | tuple):
            raise ValueError(f"the placeholder {self.name!r} has no list of messages")  # noqa: TRY004  it is bad data
        return [self._message(message, work) for message in messages]

    def _message(self, given: Any, work: Work) -> BaseMessage:
        if isinstance(given, BaseMessage):
            return given
        role, content = (given.get("role"), given.get("content")) if isinstance(given, dict) else (None, None)
        # Instructions are the prompt's own: a value can't bring a system message.
        if role not in _ROLES or role == "system" or not isinstance(content, str):
            raise ValueError(f"the placeholder {self.name!r} has no list of messages with a 'role' and a 'content'")
        return _ROLES[role](content=work.made(content))


@dataclass(frozen=True, slots=True)
class _Custom:
    renderer: str
    built: Renderer

    @property
    def variables(self) -> frozenset[str]:
        return frozenset(self.built.variables)

    @property
    def names(self) -> frozenset[str]:
        return self.variables

    def render(self, values: Mapping[str, Any], work: Work) -> list[BaseMessage]:
        made = self.built.render(values)
        messages: Any = [HumanMessage(made)] if isinstance(made, str) else made
        if not isinstance(messages, list) or not all(isinstance(message, BaseMessage) for message in messages):
            raise ValueError(f"the prompt renderer {self.renderer!r} returned neither a text nor a list of messages")
        for message in messages:
            work.made(str(message.content))
        return list(messages)


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A parsed prompt. `required` and `optional` are what is declared beside the template."""

    parts: tuple[Part, ...]
    template_format: str = "f-string"
    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()

    @property
    def variables(self) -> frozenset[str]:
        """Names that need a value."""
        return self.required.union(*(part.variables for part in self.parts)) - self.optional

    @property
    def names(self) -> frozenset[str]:
        return frozenset[str]().union(*(part.names for part in self.parts))

    def render(self, values: Mapping[str, Any]) -> list[BaseMessage]:
        """The messages. Raises ValueError that names the variable at fault."""
        for name in sorted(self.variables):
            templates.value_of(name, values)
        lists = {part.name for part in self.parts if isinstance(part, Placeholder)}
        filled = {name: [] if name in lists else "" for name in self.optional} | dict(values)
        work = Work()
        return [message for part in self.parts for message in part.render(filled, work)]


def parse_text(source: str, template_format: str = "f-string") -> ChatTemplate:
    """A text prompt: one user message. Raises ValueError."""
    return ChatTemplate((Message("user", source, templates.parse(source, template_format)),), template_format)


def parse_messages(messages: Sequence[Mapping[str, Any]], template_format: str = "f-string") -> ChatTemplate:
    """Raises ValueError that begins with the index of the message at fault."""
    if not 0 < len(messages) <= MAX_MESSAGES:
        raise ValueError(f"a prompt has 1 to {MAX_MESSAGES} messages, this one has {len(messages)}")
    parts = [_at(f"[{index}]", message, template_format) for index, message in enumerate(messages)]
    return ChatTemplate(tuple(parts), template_format)


def parse_stored(
    stored: Mapping[str, Any], *, input_variables: Sequence[str] = (), optional_variables: Sequence[str] = ()
) -> ChatTemplate:
    """A stored template: `langchain_type` says which kind; the variables are declared here or in it.

    Raises ValueError that names the key or the variable at fault.
    """
    if not isinstance(stored, Mapping):
        raise ValueError("langchain_type: a prompt is an object")  # noqa: TRY004  it is bad data
    kind = stored.get("langchain_type")
    kind = kind if isinstance(kind, str) else ""
    template = _parse_custom(stored) if kind == "custom" else _parse_templates(kind, stored)
    required = declared("input_variables", [*input_variables, *_list(stored, "input_variables")])
    optional = declared("optional_variables", [*optional_variables, *_list(stored, "optional_variables")])
    return with_declared(template, required, optional)


def declared(key: str, names: Any) -> list[str]:
    """Names of variables as they are declared. Raises ValueError that begins with the key."""
    if not isinstance(names, list | tuple) or len(names) > MAX_VARIABLES:
        raise ValueError(f"{key}: a list of at most {MAX_VARIABLES} names")
    for name in names:
        if not isinstance(name, str) or not templates.is_plain_name(name):
            raise ValueError(f"{key}: {name!r} is no plain name: letters, digits and _ only, no leading _")
    return sorted(set(names))


def with_declared(template: ChatTemplate, required: Sequence[str], optional: Sequence[str]) -> ChatTemplate:
    """Check the declared variables against the template; none declared: those of the template are.

    Raises ValueError that names the variable that is declared and not used, or used and not declared.
    """
    for key, names in (("input_variables", required), ("optional_variables", optional)):
        for name in sorted(set(names) - template.names):
            raise ValueError(f"{key}: {name!r} is declared, and the template doesn't use it")
    if both := sorted(set(required) & set(optional)):
        raise ValueError(f"optional_variables: {both[0]!r} is also one of input_variables")
    if required:
        for name in sorted(template.variables - set(required) - set(optional) - BUILT_IN):
            raise ValueError(f"input_variables: {name!r} is used by the template, and not declared")
    return replace(template, required=frozenset(required), optional=frozenset(optional))


def of_version(version: "PromptVersion") -> ChatTemplate:
    """The parsed prompt of a stored version, which never changes. Raises ValueError."""
    template = _parsed.get(version.id)
    if template is None:
        template = parse_stored(
            version.template,
            input_variables=version.input_variables,
            optional_variables=version.optional_variables,
        )
        _parsed.put(version.id, template)
    return template


_parsed: Cache[Any, ChatTemplate] = Cache("prompt_templates", 1024)


def _parse_templates(kind: str, stored: Mapping[str, Any]) -> ChatTemplate:
    template_format = stored.get("template_format", "f-string")
    if template_format not in templates.FORMATS:
        known = "'f-string' (plain names in braces) or 'mustache'"
        raise ValueError(f"template_format: {known}; nothing else is supported")
    known_keys = _COMMON | KEYS.get(kind, set())
    if kind in KEYS and (unknown := sorted(set(stored) - known_keys)):
        raise ValueError(f"{unknown[0]}: unknown key; known: {', '.join(sorted(known_keys))}")
    if kind == "PromptTemplate" and isinstance(stored.get("template"), str):
        return parse_text(stored["template"], template_format)
    if kind == "ChatPromptTemplate" and isinstance(stored.get("messages"), list):
        return _messages_of(stored["messages"], template_format)
    raise ValueError(
        "langchain_type: 'PromptTemplate' with a 'template' text, 'ChatPromptTemplate' with 'messages',"
        " or 'custom' with a 'renderer'"
    )


def _messages_of(messages: list[Any], template_format: str) -> ChatTemplate:
    try:
        return parse_messages(messages, template_format)
    except ValueError as error:
        raise ValueError(f"messages{'' if str(error).startswith('[') else ': '}{error}") from error


def _parse_custom(stored: Mapping[str, Any]) -> ChatTemplate:
    name = stored.get("renderer")
    if not isinstance(name, str):
        raise ValueError("renderer: a custom prompt names a registered prompt renderer")  # noqa: TRY004  it is bad data
    try:
        built: Renderer = prompt_renderers.get(name)(
            {key: value for key, value in stored.items() if key not in _COMMON | {"renderer"}}
        )
        declared("renderer", list(built.variables))
    except Misconfigured as error:
        raise ValueError(f"renderer: {error.message}") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"renderer: {name!r} doesn't take these options, or has no 'variables'") from error
    return ChatTemplate((_Custom(name, built),), template_format="custom")


def _list(stored: Mapping[str, Any], key: str) -> list[Any]:
    # Stored templates may say null.
    return declared(key, stored.get(key) or [])


def _at(where: str, message: Any, template_format: str) -> Part:
    if not isinstance(message, Mapping):
        raise ValueError(f"{where}: a message is an object with 'role' and 'content'")  # noqa: TRY004  it is bad data
    try:
        return _part(message, template_format)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _part(message: Mapping[str, Any], template_format: str) -> Part:
    if set(message) in ({"role", "content"}, {"type", "content"}):
        role, content = message.get("role", message.get("type")), message["content"]
    elif len(message) == 1:
        ((name, content),) = message.items()
        role = "placeholder" if name == "MessagesPlaceholder" else _LANGCHAIN_ROLES.get(name)
        if role != "placeholder":
            content = _inner(content)
    else:
        raise ValueError("a message has 'role' and 'content', or one of LangChain's template names")
    if role == "placeholder":
        return Placeholder(_placeholder_name(content))
    if not isinstance(role, str) or role not in _ROLES or not isinstance(content, str):
        raise ValueError(f"role: one of {', '.join([*_ROLES, 'placeholder'])}, with a text as content")
    return Message(role, content, templates.parse(content, template_format))


def _inner(content: Any) -> Any:
    """LangChain nests a message template's text: {"prompt": {"template": "…"}}."""
    for key in ("prompt", "template"):
        if isinstance(content, Mapping) and key in content:
            content = content[key]
    return content


def _placeholder_name(content: Any) -> str:
    if isinstance(content, Mapping):
        content = content.get("variable_name")
    found = _PLACEHOLDER.fullmatch(content) if isinstance(content, str) else None
    name = next(filter(None, found.groups()), "") if found else ""
    if not templates.is_plain_name(name):
        raise ValueError("a placeholder is one plain name, as in '{history}'")
    return name
