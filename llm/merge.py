"""Events of several producers side by side, as they come.

Each producer runs in a task of its own; a queue with a bound lets none run ahead of the consumer. The tasks end with
the consumer: when it stops, is cancelled or one of them fails, the others are cancelled, and awaited until they have
closed what they had open.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from llm.events import Event

#: Events that wait for the consumer.
_ROOM = 64

Put = Callable[[Event], Awaitable[None]]
Work = Callable[[Put], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Ended:
    error: BaseException | None = None


@asynccontextmanager
async def working(works: Sequence[Work]) -> AsyncGenerator[AsyncGenerator[Event, None], None]:
    """Run `works` at once; what they put comes out of the generator that this gives. Their first failure is raised."""
    queue: asyncio.Queue[Event | _Ended] = asyncio.Queue(_ROOM)

    async def run(work: Work) -> None:
        try:
            await work(queue.put)
        except Exception as error:  # noqa: BLE001  raised again by the consumer
            await queue.put(_Ended(error))
        else:
            await queue.put(_Ended())

    tasks = [asyncio.create_task(run(work), name="workflow-side-by-side") for work in works]
    try:
        async with aclosing(_drain(queue, len(tasks))) as events:
            yield events
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _drain(queue: "asyncio.Queue[Event | _Ended]", left: int) -> AsyncGenerator[Event, None]:
    while left:
        event = await queue.get()
        if not isinstance(event, _Ended):
            yield event
        elif event.error is not None:
            raise event.error
        else:
            left -= 1


async def merge(producers: Sequence[AsyncGenerator[Event, None]], *, at_once: int) -> AsyncGenerator[Event, None]:
    """The events of all `producers`, of which `at_once` run at a time. Raises what the first one to fail raised."""
    room = asyncio.Semaphore(at_once)

    def pumping(producer: AsyncGenerator[Event, None]) -> Work:
        async def pump(put: Put) -> None:
            async with room, aclosing(producer) as events:
                async for event in events:
                    await put(event)

        return pump

    async with working([pumping(producer) for producer in producers]) as events:
        async for event in events:
            yield event
