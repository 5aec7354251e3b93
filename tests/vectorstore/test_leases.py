"""A lease that is renewed beside the work: who loses it stops, and what fails is heard of."""

import asyncio
from datetime import timedelta

import pytest

from kernel.errors import Busy, DatabaseUnavailable
from vectorstore.leases import LeaseLost, while_renewing

OFTEN = timedelta(milliseconds=1)


class Work:
    """Goes on until it is told to end, or cancelled."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.cancelled = False

    async def __call__(self) -> str:
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "done"


async def test_work_goes_on_while_the_database_is_away_or_busy() -> None:
    work, failures = Work(), [DatabaseUnavailable(), Busy()]

    async def renew() -> bool:
        if failures:
            raise failures.pop()
        work.may_end.set()
        return True

    assert await while_renewing(work(), renew, every=OFTEN) == "done"
    assert not failures


async def test_work_ends_with_its_lease() -> None:
    work = Work()

    async def renew() -> bool:
        return False

    with pytest.raises(LeaseLost):
        await while_renewing(work(), renew, every=OFTEN)
    assert work.cancelled


async def test_a_renewal_that_fails_otherwise_ends_the_work_and_is_heard_of() -> None:
    work = Work()

    async def renew() -> bool:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await while_renewing(work(), renew, every=OFTEN)
    assert work.cancelled


async def test_who_is_cancelled_takes_the_work_along() -> None:
    work, renewed = Work(), asyncio.Event()

    async def renew() -> bool:
        renewed.set()
        return True

    whole = asyncio.ensure_future(while_renewing(work(), renew, every=OFTEN))
    await renewed.wait()
    whole.cancel()
    with pytest.raises(asyncio.CancelledError):
        await whole
    assert work.cancelled
