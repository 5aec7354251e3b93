"""Store `inmemory`: what this process heard since it started. For one process, and for tests.

It asks no database, so it forgets at a restart and knows nothing of what another process answered.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage

from kernel.conf import config as settings
from memory.messages import last, order_of

#: Conversations kept; the one that was longest untouched goes first.
MAX_SESSIONS = 1000

_sessions: OrderedDict[UUID, dict[int, BaseMessage]] = OrderedDict()


class InMemoryStore:
    def __init__(self, session_id: UUID) -> None:
        self._session_id = session_id

    async def aget_messages(self, *, limit: int, before_order: int | None = None) -> list[BaseMessage]:
        said = _sessions.get(self._session_id, {})
        return last([said[order] for order in sorted(said)], limit, before_order)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        said = _sessions.setdefault(self._session_id, {})
        # By place, so that what is said twice is remembered once.
        said.update({order_of(each): each for each in messages})
        for order in sorted(said)[: -settings().memory.max_messages]:
            del said[order]
        _sessions.move_to_end(self._session_id)
        while len(_sessions) > MAX_SESSIONS:
            _sessions.popitem(last=False)

    async def aclear(self) -> None:
        _sessions.pop(self._session_id, None)


def create(config: dict[str, Any]) -> InMemoryStore:
    return InMemoryStore(config["session_id"])
