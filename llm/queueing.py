"""Places at a model: as many calls at once as its alias allows, and a queue that is fair between workspaces.

Workspaces take turns, and within one the first comes first: who sends a hundred messages delays himself, not others.
All of it belongs to one event loop, so the bound is one of this process.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from time import monotonic
from uuid import UUID

from kernel.conf import config
from kernel.errors import Busy
from llm.events import Step

#: Seconds between two looks at one's place: changes in between are told as one.
LOOK = 0.5
#: What a caller that found no place is told to wait.
_RETRY_AFTER = 5.0


class Places:
    """One model's places. `limit` None: no bound."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.running = 0
        #: The workspaces that wait, the one whose turn is next first.
        self._queues: OrderedDict[UUID, deque[Ticket]] = OrderedDict()
        self.waiting = 0

    def ask(self, workspace_id: UUID) -> "Ticket":
        """A ticket that has a place, or waits for one. Leave it in every ending. Raises Busy if too many wait."""
        ticket = Ticket(self, workspace_id)
        if not self.waiting and self._has_room():
            self._grant(ticket)
            return ticket
        if self.waiting >= config().llm.max_waiting:
            raise Busy("Too many calls wait for this model; try again shortly.", retry_after=_RETRY_AFTER)
        self._queues.setdefault(workspace_id, deque()).append(ticket)
        self.waiting += 1
        return ticket

    def place_of(self, ticket: "Ticket") -> int:
        """How many grants it takes until this one's, by the turns as they stand."""
        mine = self._queues[ticket.workspace_id].index(ticket)
        ahead, before = 0, True
        for workspace_id, queue in self._queues.items():
            if workspace_id == ticket.workspace_id:
                ahead, before = ahead + mine, False
            else:
                ahead += min(len(queue), mine + before)
        return ahead + 1

    def _has_room(self) -> bool:
        return self.limit is None or self.running < self.limit

    def _grant(self, ticket: "Ticket") -> None:
        self.running += 1
        ticket.granted.set()

    def _leave(self, ticket: "Ticket") -> None:
        if ticket.granted.is_set():
            self.running -= 1
        else:
            queue = self._queues[ticket.workspace_id]
            queue.remove(ticket)
            self.waiting -= 1
            if not queue:
                del self._queues[ticket.workspace_id]
        while self._queues and self._has_room():
            self._grant(self._next())

    def _next(self) -> "Ticket":
        workspace_id, queue = next(iter(self._queues.items()))
        ticket = queue.popleft()
        self.waiting -= 1
        if queue:
            self._queues.move_to_end(workspace_id)
        else:
            del self._queues[workspace_id]
        return ticket


class Ticket:
    """One call's place, or its waiting for one."""

    def __init__(self, places: Places, workspace_id: UUID) -> None:
        self.workspace_id = workspace_id
        self.granted = asyncio.Event()
        self._places = places
        self._left = False

    def leave(self) -> None:
        """Give the place back, or stop waiting. May be said twice."""
        if not self._left:
            self._left = True
            self._places._leave(self)  # noqa: SLF001  the two are one thing

    async def wait(self, timeout: float, *, clock: Callable[[], float] = monotonic) -> AsyncGenerator[Step, None]:
        """Wait for the place, telling where in the queue it is. Raises Busy after `timeout` seconds."""
        until, told = clock() + timeout, 0
        while not self.granted.is_set():
            place = self._places.place_of(self)
            if place != told:
                told = place
                yield Step("queue", "queued", {"place": place})
            left = until - clock()
            if left <= 0 and not self.granted.is_set():
                raise Busy("This model has too much to do; try again shortly.", retry_after=_RETRY_AFTER)
            await self._soon(min(left, LOOK))
        if told:
            yield Step("queue", "finished")

    async def _soon(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.granted.wait()
        except TimeoutError:
            return
