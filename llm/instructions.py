"""What a model is told beside the conversation: one system message, and the first one.

Prompts, notes of a memory and agents each bring one of their own. Chat templates of many models refuse a second one, or
one that is not the first, and some providers do, too; so they are joined just before a model is asked, after what
doesn't fit has been left out.
"""

from collections.abc import Sequence

from langchain_core.messages import BaseMessage

_BETWEEN = "\n\n"


def first_of_all(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """The messages with all system messages as one, which opens; the same list where that is so already."""
    places = [at for at, one in enumerate(messages) if one.type == "system"]
    if places in ([], [0]):
        return messages
    found = [messages[at] for at in places]
    told = found[0].model_copy(update={"content": _joined([one.content for one in found])})
    return [told, *(one for one in messages if one.type != "system")]


def _joined(contents: Sequence[str | list[str | dict[str, object]]]) -> str | list[str | dict[str, object]]:
    if all(isinstance(content, str) for content in contents):
        return _BETWEEN.join(content for content in contents if isinstance(content, str) and content)
    blocks: list[str | dict[str, object]] = []
    for content in contents:
        blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return blocks
