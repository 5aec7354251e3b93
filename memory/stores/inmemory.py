"""Store `inmemory`: the tail of a conversation in this process alone, which must be the only one (memory.leases).

PostgreSQL stays the truth: what this process has not kept, or what has changed since, is read from it.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from memory import leases
from memory.stores.cached import CachedStore
from memory.stores.tail import Entry
from memory.truth import Place

#: Conversations kept; the one that was longest untouched goes first.
MAX_SESSIONS = 1000

#: Each with the epoch that its tail is of.
_sessions: OrderedDict[UUID, tuple[int, list[Entry]]] = OrderedDict()


class InMemoryStore(CachedStore):
    async def read(self, epoch: int, limit: int) -> Sequence[Entry] | None:
        """Raises Misconfigured while another process uses this store."""
        await leases.hold("inmemory")
        kept_epoch, entries = _sessions.get(self.session_id, (epoch, []))
        return entries if kept_epoch == epoch else []

    async def write(self, epoch: int, entries: Sequence[Entry]) -> None:
        kept_epoch, _ = _sessions.get(self.session_id, (epoch, []))
        # A reader of an earlier epoch may hold what has been deleted since.
        if kept_epoch <= epoch:
            _sessions[self.session_id] = (epoch, list(entries))
            self._bound()

    async def append(self, epoch: int, entries: Sequence[Entry]) -> None:
        kept_epoch, kept = _sessions.get(self.session_id, (None, []))
        if kept_epoch == epoch:
            _sessions[self.session_id] = (epoch, [*kept, *entries][-self.length :])
            self._bound()

    async def drop(self, epoch: int) -> None:
        kept_epoch, _ = _sessions.get(self.session_id, (epoch, []))
        if kept_epoch <= epoch:
            # Of an epoch that was named, and so is over, nothing is kept any more.
            _sessions[self.session_id] = (epoch if self._place is None else epoch + 1, [])
            self._bound()

    def _bound(self) -> None:
        _sessions.move_to_end(self.session_id)
        while len(_sessions) > MAX_SESSIONS:
            _sessions.popitem(last=False)


def create(config: dict[str, Any]) -> InMemoryStore:
    return InMemoryStore(config["session_id"], Place.given(config))
