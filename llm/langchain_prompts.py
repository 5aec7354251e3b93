"""Prompts as LangChain's own objects, for people who build chains with them."""

from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

from llm import mustache
from llm.prompts import ChatTemplate, Message, Placeholder


def of_text(template: ChatTemplate) -> PromptTemplate:
    """A PromptTemplate: text, not a message."""
    (message,) = template.parts
    assert isinstance(message, Message)
    source = _source(message.source, template.template_format)
    prompt: Any = PromptTemplate.from_template(source, template_format=_format(template))
    return _partial(prompt, template)  # type: ignore[no-any-return]  # as it came


def of_messages(template: ChatTemplate) -> ChatPromptTemplate:
    parts: list[Any] = []
    for part in template.parts:
        if isinstance(part, Placeholder):
            parts.append(MessagesPlaceholder(part.name, optional=part.name in template.optional))
        else:
            assert isinstance(part, Message)
            role = {"user": "human", "assistant": "ai"}.get(part.role, part.role)
            parts.append((role, _source(part.source, template.template_format)))
    prompt = ChatPromptTemplate.from_messages(parts, template_format=_format(template))
    return _partial(prompt, template)  # type: ignore[no-any-return]  # as it came


def of_renderer(template: ChatTemplate) -> Runnable[dict[str, Any], list[BaseMessage]]:
    """A Runnable from values to messages."""
    return RunnableLambda(template.render)


def _format(template: ChatTemplate) -> Any:
    return template.template_format


def _source(source: str, template_format: str) -> str:
    return mustache.unescaped(source) if template_format == "mustache" else source


def _partial(prompt: Any, template: ChatTemplate) -> Any:
    """Optional variables are empty unless they are given."""
    texts = template.optional - {part.name for part in template.parts if isinstance(part, Placeholder)}
    return prompt.partial(**dict.fromkeys(sorted(texts), "")) if texts else prompt
