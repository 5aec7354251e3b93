"""Watching documents on their way: one look at the database a second, for everybody who watches in this process.

Who may see a document is asked before; here it is known by its id alone.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from kernel import database
from kernel.errors import Busy, ChainError
from vectorstore.models import Document, DocumentState

logger = logging.getLogger(__name__)

#: Seconds between two looks.
_LOOK = 1.0
#: Watches of one person, and of a process.
MOST_OF_ONE = 10
_MOST = 500
_SHOWN = ("state", "done", "total", "error_code", "reason")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How far a document is."""

    state: str
    done: int
    total: int
    error_code: str
    reason: str

    @property
    def over(self) -> bool:
        """Nothing changes by itself any more."""
        return self.state in (DocumentState.READY, DocumentState.FAILED)


def seen(row: Any) -> Seen:
    return Seen(**{name: getattr(row, name) for name in _SHOWN})


class Watch:
    """One person's look at one document. `gone`: it was deleted; `ended`: the process ends."""

    def __init__(self, document_id: UUID, user_id: int, known: Seen) -> None:
        self.document_id = document_id
        self.user_id = user_id
        self.gone = self.ended = False
        self._known: Seen | None = known
        self._told: Seen | None = None
        self._changed = asyncio.Event()

    def take(self) -> Seen | None:
        """What has not been told yet; None: nothing is new."""
        if self._known == self._told:
            return None
        self._told = self._known
        return self._told

    async def more(self, timeout: float) -> bool:
        """Wait for a change, at most so many seconds; whether there was one."""
        self._changed.clear()
        if self._known != self._told or self.gone or self.ended:
            return True
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def show(self, now: Seen | None) -> None:
        self.gone = now is None
        if now is not None and now != self._known:
            self._known = now
            self._changed.set()
        if self.gone:
            self._changed.set()

    def end(self) -> None:
        self.ended = True
        self._changed.set()


class Watcher:
    """The watches of an event loop. `current()` makes it."""

    def __init__(self) -> None:
        self._watches: defaultdict[UUID, set[Watch]] = defaultdict(set)
        self._of: Counter[int] = Counter()
        self._looking: asyncio.Task[None] | None = None

    @classmethod
    def current(cls) -> "Watcher":
        return _watchers.setdefault(asyncio.get_running_loop(), cls())

    def check_room(self, user_id: int) -> None:
        """Raises Busy."""
        if self._of[user_id] >= MOST_OF_ONE or self._of.total() >= _MOST:
            raise Busy("You watch too many documents at once; close some, or ask for them now and then.", retry_after=5)

    def enter(self, watch: Watch) -> None:
        """Have it shown what changes, until it leaves. Raises Busy."""
        self.check_room(watch.user_id)
        self._watches[watch.document_id].add(watch)
        self._of[watch.user_id] += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="chain-documents")

    def leave(self, watch: Watch) -> None:
        """Harmless for one that has never entered."""
        others = self._watches.get(watch.document_id, set())
        if watch not in others:
            return
        others.remove(watch)
        if not others:
            del self._watches[watch.document_id]
        self._of[watch.user_id] -= 1
        self._of += Counter()  # forgets who watches nothing

    def end(self) -> None:
        """The process ends: so do its watches, and their people come back to another one."""
        for watch in [each for some in self._watches.values() for each in some]:
            watch.end()

    async def _look(self) -> None:
        while self._watches:
            try:
                found = await database.run(_states, list(self._watches))
            except ChainError:
                found = None  # the database is away: the next look may find it
            except Exception:
                logger.exception("action=watch_failed")
                found = None
            if found is not None:
                for document_id, watches in self._watches.items():
                    # One that came during the look is in the next one.
                    if document_id in found:
                        for watch in watches:
                            watch.show(found[document_id])
            await asyncio.sleep(_LOOK)


_watchers: WeakKeyDictionary[asyncio.AbstractEventLoop, Watcher] = WeakKeyDictionary()


def _states(document_ids: list[UUID]) -> dict[UUID, Seen | None]:
    rows = Document.objects.filter(id__in=document_ids).values("id", *_SHOWN)
    gone: dict[UUID, Seen | None] = dict.fromkeys(document_ids)
    return gone | {row.pop("id"): Seen(**row) for row in rows}
