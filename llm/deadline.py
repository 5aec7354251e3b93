"""The time that a whole run may take, at the cost of one look at the current task an event.

`asyncio.timeout` can't do this: it would cancel a consumer that works between two events. One timer cancels whoever
waits for the run when the time is over; if nobody waits then, the next one to ask is told.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Self

from llm.errors import WorkflowTimeout
from llm.events import Event


async def within(
    seconds: float, events: AsyncGenerator[Event, None], *, then: Callable[[], Awaitable[None]] | None = None
) -> AsyncGenerator[Event, None]:
    """The events as they come, and `then` after a good end.

    Raises WorkflowTimeout when the time is over, and closes what still runs.
    """
    with Deadline(seconds) as deadline:
        try:
            deadline.resume()
            async with aclosing(events):
                async for event in events:
                    deadline.pause()
                    yield event
                    deadline.resume()
        except BaseException as error:
            if deadline.expired():
                raise WorkflowTimeout from error
            raise
    if then is not None:
        await then()


class Deadline:
    """Between `resume()` and `pause()` the run is waited for. `expired()` takes back a cancellation that was ours."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._task: asyncio.Task[object] | None = None
        self._cancels_before = 0
        self._over = self._fired = False

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self._seconds, self._end)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._timer.cancel()

    def resume(self) -> None:
        """Raises WorkflowTimeout if the time is over."""
        if self._over:
            raise WorkflowTimeout
        # Read anew each time: a consumer may ask for each event from another task.
        self._task = asyncio.current_task(self._loop)

    def pause(self) -> None:
        self._task = None

    def expired(self) -> bool:
        """Whether this deadline, and no one else, cancelled the task."""
        if not self._fired or self._task is None:
            return False
        self._fired = False
        return self._task.uncancel() <= self._cancels_before

    def _end(self) -> None:
        self._over = True
        if self._task is not None:
            self._fired, self._cancels_before = True, self._task.cancelling()
            self._task.cancel()
