"""Rows as LangChain messages. Imports LangChain, so it is itself imported on first use, never at start-up.

A message's place in its conversation (`order`) travels in `response_metadata`, which no provider sends to a model.
"""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

ORDER = "order"


def message(order: int, role: str, content: str, message_id: object = None) -> BaseMessage:
    """A HumanMessage or AIMessage for a row of role USER or ASSISTANT."""
    kind = HumanMessage if role == "USER" else AIMessage
    return kind(content=content, id=str(message_id) if message_id else None, response_metadata={ORDER: order})


def order_of(of: BaseMessage) -> int:
    """The message's place in its conversation. Raises ValueError if it carries none."""
    try:
        return int(of.response_metadata[ORDER])
    except KeyError as error:
        raise ValueError(f"A remembered message needs its place: set response_metadata[{ORDER!r}].") from error


def role_of(of: BaseMessage) -> str:
    return "USER" if of.type == "human" else "ASSISTANT"


def last(messages: Sequence[BaseMessage], limit: int, before_order: int | None) -> list[BaseMessage]:
    """The last `limit` of `messages` that say something and stand before that place."""
    found = [each for each in messages if each.text and (before_order is None or order_of(each) < before_order)]
    return found[-limit:] if limit > 0 else []
