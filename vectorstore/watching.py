"""Watching documents on their way: one look at the database a second, for everybody who watches in this process.

Who may see a document or a collection is asked before; here it is known by its id alone.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from django.db import connection
from django.utils import timezone

from kernel import database
from kernel.errors import Busy, ChainError
from kernel.ids import first_id
from vectorstore.models import Document, DocumentState

logger = logging.getLogger(__name__)

#: Seconds between two looks.
_LOOK = 1.0
#: Watches of one person, and of a process.
MOST_OF_ONE = 10
_MOST = 500
#: Documents of a collection that a look finds, in each state on the way and among those that were added lately; fewer
#: where many collections are watched, so that a look at all of them takes no more than about a tenth of a second.
_MOST_SHOWN = 500
_MOST_OF_A_LOOK = 3000
_LATELY = timedelta(minutes=5)
_SHOWN = ("state", "done", "total", "error_code", "reason")
_UNDER_WAY = (DocumentState.QUEUED, DocumentState.PARSING, DocumentState.EMBEDDING)

#: Its name, and its values.
Event = tuple[str, dict[str, Any]]


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
        return self.state not in _UNDER_WAY


def seen(row: Any) -> Seen:
    return Seen(**{name: getattr(row, name) for name in _SHOWN})


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a look found: documents that were asked for (None: it is gone), and those of each collection."""

    documents: dict[UUID, Seen | None]
    collections: dict[UUID, dict[UUID, Seen]]


class Watch(ABC):
    """One person's look at something. `over`: all is told; `ended`: the process ends."""

    def __init__(self, of: UUID, user_id: int) -> None:
        self.of = of
        self.user_id = user_id
        self.over = self.ended = False
        self._changed = asyncio.Event()

    @abstractmethod
    def asked(self) -> tuple[Iterable[UUID], Iterable[UUID]]:
        """The documents and the collections that the next look is for."""

    @abstractmethod
    def show(self, looked: Looked) -> None:
        """Take in what a look found that was asked for by this one."""

    @abstractmethod
    def take(self) -> list[Event]:
        """What has not been told yet."""

    @abstractmethod
    def _new(self) -> bool:
        """Whether there is something to take."""

    async def more(self, timeout: float) -> bool:
        """Wait for a change, at most so many seconds; whether there was one."""
        self._changed.clear()
        if self._new() or self.ended:
            return True
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def end(self) -> None:
        self.ended = True
        self._changed.set()


class DocumentWatch(Watch):
    """A look at one document: its states, until it is ready, has failed or is gone."""

    def __init__(self, of: UUID, user_id: int, known: Seen) -> None:
        super().__init__(of, user_id)
        self._known: Seen | None = known
        self._told: Seen | None = None

    def asked(self) -> tuple[Iterable[UUID], Iterable[UUID]]:
        return (self.of,), ()

    def show(self, looked: Looked) -> None:
        self._known = looked.documents[self.of]
        if self._new():
            self._changed.set()

    def take(self) -> list[Event]:
        if not self._new():
            return []
        self._told, self.over = self._known, self._known is None or self._known.over
        return [("gone", {}) if self._told is None else ("state", asdict(self._told))]

    def _new(self) -> bool:
        return not self.over and (self._known is None or self._known != self._told)


class CollectionWatch(Watch):
    """A look at a collection's documents, those on the way and those added lately: their states, until none is on the
    way.
    """

    def __init__(self, of: UUID, user_id: int) -> None:
        super().__init__(of, user_id)
        self._looked = False
        #: As the last look found them; those that it found no more, as they are by themselves; as they were told.
        self._found: dict[UUID, Seen] = {}
        self._left: dict[UUID, Seen | None] = {}
        self._told: dict[UUID, Seen] = {}

    def asked(self) -> tuple[Iterable[UUID], Iterable[UUID]]:
        return [known for known, state in self._told.items() if not state.over], (self.of,)

    def show(self, looked: Looked) -> None:
        self._looked, self._found = True, looked.collections[self.of]
        asked_for = self._told.keys() & looked.documents.keys()
        self._left = {known: looked.documents[known] for known in asked_for - self._found.keys()}
        if self._new():
            self._changed.set()

    def take(self) -> list[Event]:
        if not self._looked:
            return []
        told: list[Event] = [
            ("gone", {"document": known}) if state is None else ("state", {"document": known, **asdict(state)})
            for known, state in self._news().items()
        ]
        self.over = self._settled()
        # What was told since the last look began is asked for by the next one.
        unasked = self._told.keys() - self._left.keys()
        self._told = {known: self._told[known] for known in unasked if not self._told[known].over} | self._found
        self._left = {}
        return [*told, ("settled", {})] if self.over else told

    def _new(self) -> bool:
        return self._looked and (bool(self._news()) or self._settled())

    def _news(self) -> dict[UUID, Seen | None]:
        now: dict[UUID, Seen | None] = {**self._found, **self._left}
        return {known: state for known, state in now.items() if self._told.get(known) != state}

    def _settled(self) -> bool:
        now = {**self._told, **self._found, **self._left}
        return all(state is None or state.over for state in now.values())


class Watcher:
    """The watches of an event loop. `current()` makes it."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
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
        self._watches.add(watch)
        self._of[watch.user_id] += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="chain-documents")

    def leave(self, watch: Watch) -> None:
        """Harmless for one that has never entered."""
        if watch not in self._watches:
            return
        self._watches.remove(watch)
        self._of[watch.user_id] -= 1
        self._of += Counter()  # forgets who watches nothing

    def end(self) -> None:
        """The process ends: so do its watches, and their people come back to another one."""
        for watch in tuple(self._watches):
            watch.end()

    async def _look(self) -> None:
        while self._watches:
            # One that comes during the look is in the next one.
            watches = tuple(self._watches)
            asked = [watch.asked() for watch in watches]
            documents = {each for those, _ in asked for each in those}
            collections = {each for _, those in asked for each in those}
            try:
                looked = await database.run(_looked, documents, collections)
            except ChainError:
                looked = None  # the database is away: the next look may find it
            except Exception:
                logger.exception("action=watch_failed")
                looked = None
            if looked is not None:
                for watch in watches:
                    watch.show(looked)
            await asyncio.sleep(_LOOK)


_watchers: WeakKeyDictionary[asyncio.AbstractEventLoop, Watcher] = WeakKeyDictionary()


def _looked(documents: set[UUID], collections: set[UUID]) -> Looked:
    """A query for all the collections, and one for the documents that it doesn't find."""
    within = _within(collections) if collections else {}
    found: dict[UUID, Seen | None] = {known: state for those in within.values() for known, state in those.items()}
    others = documents - found.keys()
    rows = Document.objects.filter(id__in=others).values("id", *_SHOWN) if others else ()
    found |= dict.fromkeys(others) | {row.pop("id"): Seen(**row) for row in rows}
    return Looked(documents={known: found[known] for known in documents}, collections=within)


#: Each part reads the beginning of an index, however large the collection is.
_WITHIN = """
    SELECT collection.id, document.* FROM unnest(%(collections)s::uuid[]) AS collection(id) CROSS JOIN LATERAL (
        (
            SELECT id, state, done, total, error_code, reason FROM vectorstore_document
            WHERE collection_id = collection.id AND id >= %(since)s ORDER BY id DESC LIMIT %(most)s
        )
        UNION
        SELECT newest.* FROM unnest(%(states)s::text[]) AS wanted(state) CROSS JOIN LATERAL (
            SELECT id, state, done, total, error_code, reason FROM vectorstore_document
            WHERE collection_id = collection.id AND state = wanted.state ORDER BY id DESC LIMIT %(most)s
        ) AS newest
    ) AS document
"""


def _within(collections: set[UUID]) -> dict[UUID, dict[UUID, Seen]]:
    """Of each collection the documents that are on the way, and those that were added lately."""
    found: defaultdict[UUID, dict[UUID, Seen]] = defaultdict(dict)
    since = first_id(timezone.now() - _LATELY)
    most = max(1, min(_MOST_SHOWN, _MOST_OF_A_LOOK // len(collections)))
    asked: dict[str, Any] = {"collections": list(collections), "since": since, "most": most}
    with connection.cursor() as cursor:
        cursor.execute(_WITHIN, asked | {"states": list(_UNDER_WAY)})
        for collection_id, document_id, *values in cursor.fetchall():
            found[collection_id][document_id] = Seen(**dict(zip(_SHOWN, values, strict=True)))
    return {each: found[each] for each in collections}
