"""What a model is told, in the form that every model takes: one system message, the first one, then turns in turn.

Prompts, notes of a memory and agents each bring instructions of their own, and where an answer failed or a question was
deleted, two messages of the same side meet. Chat templates of many models refuse that, and some providers do, too; so
they are joined just before a model is asked, after what doesn't fit has been left out.
"""

from collections.abc import Sequence

from langchain_core.messages import BaseMessage

_BETWEEN = "\n\n"


def first_of_all(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """The messages with all system messages as one, which opens, and neighbours of the same side as one.

    The same list where that is so already.
    """
    return _in_turn(_instructed(messages))


def _instructed(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    places = [at for at, one in enumerate(messages) if one.type == "system"]
    if places in ([], [0]):
        return messages
    found = [messages[at] for at in places]
    told = found[0].model_copy(update={"content": _joined([one.content for one in found])})
    return [told, *(one for one in messages if one.type != "system")]


def _in_turn(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    kept: list[BaseMessage] = []
    for one in messages:
        if kept and _same_side(kept[-1], one):
            kept[-1] = one.model_copy(update={"content": _joined([kept[-1].content, one.content])})
        else:
            kept.append(one)
    return kept if len(kept) < len(messages) else messages


def _same_side(one: BaseMessage, other: BaseMessage) -> bool:
    """Both are a person's or both a model's, and text alone: calls of tools stay with their results."""
    calls = getattr(one, "tool_calls", ()) or getattr(other, "tool_calls", ())
    return one.type == other.type and one.type in ("human", "ai") and one.name == other.name and not calls


def _joined(contents: Sequence[str | list[str | dict[str, object]]]) -> str | list[str | dict[str, object]]:
    if all(isinstance(content, str) for content in contents):
        return _BETWEEN.join(content for content in contents if isinstance(content, str) and content)
    blocks: list[str | dict[str, object]] = []
    for content in contents:
        blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return blocks
