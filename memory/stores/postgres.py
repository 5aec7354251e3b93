"""Store `postgres`: ChatHistory is the conversation, so there is nothing to write and no copy to keep in step."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage

from kernel import database
from memory.messages import message
from memory.truth import Place, last_rows


class PostgresStore:
    def __init__(self, session_id: UUID, place: Place | None) -> None:
        self._session_id = session_id
        self._place = place

    async def aget_messages(self, *, limit: int, before_order: int | None = None) -> list[BaseMessage]:
        leaf = None
        if self._place is not None:
            leaf = self._place.leaf
            if leaf is None:
                return []
        rows = await database.run(last_rows, self._session_id, limit=limit, before_order=before_order, leaf=leaf)
        return [message(row.order, row.role, row.content, row.id, row.parent) for row in rows]

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Nothing to do: chat wrote the rows when it accepted and ended the turn."""

    async def aclear(self) -> None:
        """Nothing to do: there is no copy."""


def create(config: dict[str, Any]) -> PostgresStore:
    return PostgresStore(config["session_id"], Place.given(config))
