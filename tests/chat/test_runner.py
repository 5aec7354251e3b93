"""What the runner keeps, and what it must not keep."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from time import monotonic
from uuid import UUID

import pytest
from django.db import transaction
from django.db.models.functions import Now

from chat import sessions, turns
from chat.hub import Hub
from chat.models import MessageStatus, Run
from chat.runner import Runner
from chat.wire import Live
from kernel import database
from kernel.errors import Busy, DatabaseUnavailable
from tests.conftest import Person


class MuteHub(Hub):
    """A hub with a bug: it can announce nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def publish(self, session_id: UUID, *lives: Live) -> None:
        self.asked.set()
        raise RuntimeError("a bug")


@pytest.fixture
async def hub() -> MuteHub:
    return MuteHub()


@pytest.fixture
async def runner(hub: MuteHub) -> AsyncIterator[Runner]:
    runner = Runner(hub)
    yield runner
    await runner.close()


async def test_a_run_that_could_not_be_begun_is_left_to_another_process(
    runner: Runner, hub: MuteHub, person: Person
) -> None:
    session = await database.run(sessions.create_session, person.caller)
    accepted = await runner.send(person.caller, session.id, client_id="a", text="hello")
    await asyncio.wait_for(hub.asked.wait(), 5)
    async with asyncio.timeout(5):
        while runner.jobs:
            await asyncio.sleep(0.01)
    run = await database.run(Run.objects.get, message_id=accepted.answer_id)
    assert run.status == MessageStatus.PENDING
    assert await database.run(turns.renew, runner.owner, list(runner.jobs)) == []


async def test_a_full_process_still_acks_what_it_has_committed(person: Person) -> None:
    session = await database.run(sessions.create_session, person.caller)
    said = {"client_id": "a", "text": "hello", "owner": "me"}
    first = await database.run(turns.accept, person.caller, session.id, **said)
    repeat = await database.run(turns.accept, person.caller, session.id, **said, full=True)
    assert (repeat.message_id, repeat.answer_id, repeat.seq) == (first.message_id, first.answer_id, first.seq)
    with pytest.raises(Busy):
        await database.run(turns.accept, person.caller, session.id, **said | {"client_id": "b"}, full=True)


async def test_who_sat_out_an_outage_takes_no_run_over_until_its_owner_had_time_to_come_back(person: Person) -> None:
    session = await database.run(sessions.create_session, person.caller)
    accepted = await database.run(turns.accept, person.caller, session.id, client_id="a", text="hello", owner="cut off")
    mine = Run.objects.filter(message_id=accepted.answer_id)

    def look() -> None:
        with transaction.atomic():  # locked: no other process takes it meanwhile
            mine.update(lease_expires_at=Now() - timedelta(seconds=1))
            with pytest.raises(DatabaseUnavailable):
                turns.take_over("back", limit=20, before=monotonic() - 0.001)
            assert mine.values_list("owner", "attempt").get() == ("cut off", 1)
            taken = turns.take_over("back", limit=20, before=monotonic() + 60)
            assert accepted.answer_id in {one.turn.answer_id for one in taken}
            transaction.set_rollback(True)

    await database.run(look)
