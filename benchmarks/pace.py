"""When tokens are due: the same pace for every server, so that only what they do with a token differs."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

#: Tokens after which the event loop gets a turn when nothing else makes us wait, as a provider's next read would.
_TOKENS_PER_READ = 1


async def due_times(tokens: int, rate: float) -> AsyncIterator[float]:
    """Yield `tokens` times, each when its token is due (`rate` a second; 0: at once), the time it was due at.

    A server that is late doesn't wait: the provider has gone on meanwhile, and what it said lies there to be read.
    """
    start = monotonic()
    for count in range(1, tokens + 1):
        due = start + count / rate if rate else monotonic()
        ahead = due - monotonic()
        if rate and ahead > 0:
            await asyncio.sleep(ahead)
        elif count % _TOKENS_PER_READ == 0:
            await asyncio.sleep(0)
        yield due


def stamp(due: float) -> str:
    """A token that says when it was due, by the clock that all processes of a machine share."""
    return f"{due:.4f} "
