"""What `redis` and `inmemory` share: a copy of a conversation's end that is checked, and rebuilt from the truth."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import inf
from time import monotonic
from uuid import UUID

from langchain_core.messages import BaseMessage

from kernel import database
from kernel.conf import config as settings
from memory.messages import message, order_of, parent_of, role_of
from memory.stores import tail
from memory.stores.tail import Entry
from memory.truth import Place, branch, place_of


class CachedStore(ABC):
    """One conversation's tail, kept for one epoch; without a `place` it is wherever the session stands when asked."""

    #: Seconds after `Place.as_of` in which the tail of an epoch is believed; bounded where a drop may fail.
    trusted = inf

    def __init__(self, session_id: UUID, place: Place | None) -> None:
        self.session_id = session_id
        self._place = place
        #: Twice what any kind asks for: entries that say nothing take places too.
        self.length = 2 * settings().memory.max_messages + 2

    async def aget_messages(self, *, limit: int, before_order: int | None = None) -> list[BaseMessage]:
        place = await self._where()
        if limit < 1 or place.leaf is None:
            return []
        entries = await self.read(place.epoch, limit) if self._believed(place) else None
        if not self._believed(place):  # by now
            entries = None
        if entries is not None:
            fitting = tail.view(entries, leaf=str(place.leaf), limit=limit, before_order=before_order)
            if fitting is not None:
                return [message(each.order, each.role, each.content, each.id, each.parent) for each in fitting]
        rows = await database.run(branch, self.session_id, limit=limit, before_order=before_order, leaf=place.leaf)
        # What is under way has still to be said, and what stands behind `before_order` came without its text.
        whole = rows and (before_order is None or rows[-1].order < before_order)
        if whole and entries is not None and not any(row.pending for row in rows):
            await self.write(place.epoch, tail.build(rows[-self.length :]))
        return [message(row.order, row.role, row.content, row.id, row.parent) for row in rows if row.content]

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append to a tail that exists; only a reader starts one, because it knows what came before."""
        entries = [Entry(m.id or "", parent_of(m), order_of(m), role_of(m), str(m.text)) for m in messages]
        if entries:
            await self.append((await self._where()).epoch, entries)

    async def aclear(self) -> None:
        await self.drop((await self._where()).epoch)

    def _believed(self, place: Place) -> bool:
        return monotonic() - place.as_of <= self.trusted

    async def _where(self) -> Place:
        if self._place is not None:
            return self._place
        return await database.run(place_of, self.session_id)

    @abstractmethod
    async def read(self, epoch: int, limit: int) -> Sequence[Entry] | None:
        """Enough of the tail for `limit` messages, or None while it can be neither read nor written."""

    @abstractmethod
    async def write(self, epoch: int, entries: Sequence[Entry]) -> None:
        """Put a tail in place of what was kept."""

    @abstractmethod
    async def append(self, epoch: int, entries: Sequence[Entry]) -> None:
        """Add to a tail that exists."""

    @abstractmethod
    async def drop(self, epoch: int) -> None:
        """Keep nothing of that epoch."""
