"""Rows as LangChain messages. Imports LangChain, so it is itself imported on first use, never at start-up.

A message's place in its conversation (`order`, and the `parent` that it follows) travels in `response_metadata`, which
no provider sends to a model.
"""

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

ORDER = "order"
PARENT = "parent"


def message(order: int, role: str, content: str, message_id: object = None, parent: object = None) -> BaseMessage:
    """A HumanMessage or AIMessage for a row of role USER or ASSISTANT; `parent`: the message that it follows."""
    kind = HumanMessage if role == "USER" else AIMessage
    place: dict[str, object] = {ORDER: order, PARENT: str(parent) if parent else ""}
    return kind(content=content, id=str(message_id) if message_id else None, response_metadata=place)


def order_of(of: BaseMessage) -> int:
    """The message's place in its conversation. Raises ValueError if it carries none."""
    try:
        return int(of.response_metadata[ORDER])
    except KeyError as error:
        raise ValueError(f"A remembered message needs its place: set response_metadata[{ORDER!r}].") from error


def parent_of(of: BaseMessage) -> str:
    """The id of the message that it follows; empty for the first."""
    return str(of.response_metadata.get(PARENT) or "")


def role_of(of: BaseMessage) -> str:
    return "USER" if of.type == "human" else "ASSISTANT"


def spoken(role: str, content: str) -> str:
    """A message as a line of a text that quotes it."""
    return f"{'User' if role == 'USER' else 'Assistant'}: {content}"


def quoted(text: str) -> str:
    """Nothing in it can end the place where it is quoted."""
    return text.replace("</", "<\u200b/")
