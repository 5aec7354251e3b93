"""A lease that is renewed beside the work that it is held for."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from kernel.errors import Busy, DatabaseUnavailable

T = TypeVar("T")


class LeaseLost(Exception):
    """The work is nobody's any more, or somebody else's."""


async def while_renewing(work: Awaitable[T], renew: Callable[[], Awaitable[bool]], *, every: timedelta) -> T:
    """The result of `work`; once `renew` says that the lease is lost, the work is cancelled.

    A database that is away for a while doesn't end the work. Raises what `work` or `renew` raises, and LeaseLost.
    """
    working = asyncio.ensure_future(work)
    renewing = asyncio.ensure_future(_renewed(renew, every))
    try:
        await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await renewing
            raise LeaseLost
        return await working
    finally:
        for each in (working, renewing):
            each.cancel()
        await asyncio.gather(working, renewing, return_exceptions=True)


async def _renewed(renew: Callable[[], Awaitable[bool]], every: timedelta) -> None:
    """Returns when the lease is lost."""
    held = True
    while held:
        await asyncio.sleep(every.total_seconds())
        try:
            held = await renew()
        except (DatabaseUnavailable, Busy):
            # Nobody else can take it now either, or hardly: the work goes on.
            continue
