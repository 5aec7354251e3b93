"""When tokens are due: the same pace for every server, so that only what they do with a token differs."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

#: Tokens that a late server takes in one turn of its event loop.
_WAITING = 16


async def due_times(tokens: int, rate: float) -> AsyncIterator[float]:
    """For each of `tokens`: wait until it is due, and yield the time it was due at; `rate` tokens a second.

    `rate` 0: one at each turn of the event loop. A server that is late doesn't wait: its provider has gone on
    meanwhile, and what it said lies there to be read.
    """
    start = monotonic()
    for count in range(1, tokens + 1):
        due = start + count / rate if rate else 0.0
        if not rate:
            await asyncio.sleep(0)
        elif (ahead := due - monotonic()) > 0:
            await asyncio.sleep(ahead)
        elif count % _WAITING == 0:
            await asyncio.sleep(0)
        yield due


def stamp(due: float) -> str:
    """A token that says when it was due, by the clock that all processes of a machine share."""
    return f"{due:.4f} "
