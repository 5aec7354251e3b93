"""A conversation as LangChain's chat history, for chains that people compose themselves. Imported by who asks for it.

It reads what people see of the conversation: the active branch, without deleted and failed messages. It doesn't write:
a message of a conversation has a place, an author, and an answer with its log, all of which a turn gives it.
"""

from collections.abc import Sequence
from uuid import UUID

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from typing_extensions import override

from kernel.conf import config as settings
from kernel.errors import Refused
from llm.runnable import in_a_loop
from memory.exchange import open_store


class SessionHistory(BaseChatMessageHistory):
    """The newest `limit` messages of a session (MEMORY["MAX_MESSAGES"] without it), oldest first.

    `store`: where they are read from, MEMORY["STORE"] without it. The caller may read the session: nobody is asked.
    """

    def __init__(self, session_id: UUID, *, store: str = "", limit: int | None = None) -> None:
        self._store = open_store(store or settings().memory.store, session_id)
        self._limit = limit or settings().memory.max_messages

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # LangChain has a plain attribute there
        """For sync code. Raises RuntimeError in a running event loop: await aget_messages there."""
        return in_a_loop(self.aget_messages())

    @override
    async def aget_messages(self) -> list[BaseMessage]:
        return await self._store.aget_messages(limit=self._limit)

    @override
    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Raises Refused."""
        raise Refused("A conversation is written by its turns: send the message to the session instead.")

    @override
    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Raises Refused."""
        self.add_messages(messages)

    @override
    def clear(self) -> None:
        """Raises Refused."""
        raise Refused("A conversation is not cleared by its memory: delete its messages or the session instead.")

    @override
    async def aclear(self) -> None:
        """Raises Refused."""
        self.clear()
