"""Work that goes on as long as what is beside it does: above all, a lease that is renewed."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from kernel.errors import Busy, DatabaseUnavailable

T = TypeVar("T")


class LeaseLost(Exception):
    """The work is nobody's any more, or somebody else's."""


async def while_renewing(work: Awaitable[T], renew: Callable[[], Awaitable[bool]], *, every: timedelta) -> T:
    """The result of `work`; once `renew` says that the lease is lost, the work is cancelled.

    A database that is away for a while doesn't end the work. Raises what `work` or `renew` raises, and LeaseLost.
    """
    return await unless(work, _renewed(renew, every))


async def unless(work: Awaitable[T], *others: Coroutine[Any, Any, NoReturn]) -> T:
    """The result of `work`, unless one of the others, which end by raising, does so before: then that is raised."""
    working = asyncio.ensure_future(work)
    beside = [asyncio.ensure_future(each) for each in others]
    try:
        await asyncio.wait((working, *beside), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            next(each for each in beside if each.done()).result()
        return await working
    finally:
        for each in (working, *beside):
            each.cancel()
        await asyncio.gather(working, *beside, return_exceptions=True)


async def _renewed(renew: Callable[[], Awaitable[bool]], every: timedelta) -> NoReturn:
    held = True
    while held:
        await asyncio.sleep(every.total_seconds())
        try:
            held = await renew()
        except (DatabaseUnavailable, Busy):
            # Nobody else can take it now either, or hardly: the work goes on.
            continue
    raise LeaseLost
