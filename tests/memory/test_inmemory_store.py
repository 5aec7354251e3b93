"""The inmemory store: bounded, rebuilt from PostgreSQL where it doesn't fit, and for one process."""

import os
import socket
from datetime import timedelta

import pytest
from django.utils import timezone

from kernel import database
from kernel.errors import Misconfigured
from memory import leases
from memory.exchange import forget, open_store
from memory.leases import ProcessLease
from memory.stores import inmemory
from tests.memory.conversations import Conversation

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def talk(monkeypatch) -> Conversation:
    monkeypatch.setattr(leases, "_held", {})
    inmemory._sessions.clear()
    conversation = await Conversation.begin()
    for number in range(4):
        await conversation.say(f"q{number}", f"a{number}", store="inmemory")
    return conversation


async def served_from_memory(talk: Conversation) -> bool:
    """Whether the next reader is served by the copy: a row changed behind its back doesn't show."""
    await talk.change(1, content="changed behind its back")
    return "Q: changed behind its back" not in await talk.recall("inmemory")


async def test_what_this_process_has_not_heard_comes_from_the_database_and_is_kept(talk):
    assert await talk.recall("inmemory") == await talk.truth()
    await talk.say("more?", "yes", store="inmemory")
    assert await talk.recall("inmemory") == await talk.truth()
    assert await served_from_memory(talk)


async def test_a_change_of_the_past_ends_the_copy(talk):
    await talk.recall("inmemory")
    await talk.change(3, is_deleted=True)
    await talk.next_epoch()
    assert "Q: q1" not in await talk.recall("inmemory")


async def test_forgetting_leaves_no_text_in_the_process(talk):
    await talk.recall("inmemory")
    await forget(talk.session_id, epoch=0)
    assert inmemory._sessions[talk.session_id][1] == []


async def test_a_reader_overtaken_by_a_deletion_brings_nothing_back(talk, monkeypatch):
    store = open_store("inmemory", talk.session_id, leaf=talk.head, epoch=0)
    write = store.write

    async def overtaken(*arguments):
        await talk.change(3, is_deleted=True)
        await forget(talk.session_id, epoch=await talk.next_epoch())
        await write(*arguments)

    monkeypatch.setattr(store, "write", overtaken)
    await store.aget_messages(limit=20, before_order=talk.next_order)
    early = open_store("inmemory", talk.session_id, leaf=talk.head, epoch=0)
    assert "q1" not in [message.text for message in await early.aget_messages(limit=20)]
    assert inmemory._sessions[talk.session_id][1] == []


async def test_a_long_conversation_loses_its_beginning(talk, settings):
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"MEMORY": {"MAX_MESSAGES": 2}}
    await talk.recall("inmemory", limit=2)
    for number in range(10):
        await talk.say(f"more{number}", "a", store="inmemory")
    assert len(inmemory._sessions[talk.session_id][1]) == 6
    assert await talk.recall("inmemory", limit=2) == await talk.truth(limit=2)


async def test_the_conversation_that_was_longest_untouched_goes_first(talk, monkeypatch):
    monkeypatch.setattr(inmemory, "MAX_SESSIONS", 2)
    second, third = await Conversation.begin(), await Conversation.begin()
    for each in (second, third):
        await each.say("here?", "yes")
    for each in (talk, second):
        await each.recall("inmemory")
    await talk.say("still?", "yes", store="inmemory")
    await third.recall("inmemory")
    assert list(inmemory._sessions) == [talk.session_id, third.session_id]


# One process ---------------------------------------------------------------------------------------------------------


async def held_by(*, host: str, pid: int, seconds: float) -> None:
    ends = timezone.now() + timedelta(seconds=seconds)
    values = {"host": host, "pid": pid, "token": "another", "expires_at": ends}
    await database.run(ProcessLease.objects.update_or_create, name="inmemory", defaults=values)


async def test_another_live_process_is_named_with_what_to_do(talk):
    await held_by(host="elsewhere", pid=7, seconds=30)
    with pytest.raises(Misconfigured, match=r'process 7 on elsewhere .*"postgres" or "redis"'):
        await talk.recall("inmemory")
    await held_by(host=socket.gethostname()[:100], pid=os.getppid(), seconds=30)
    with pytest.raises(Misconfigured):
        await talk.recall("inmemory")


async def test_a_process_that_died_holds_nothing_for_long(talk):
    await held_by(host="elsewhere", pid=7, seconds=-1)
    assert await talk.recall("inmemory") == await talk.truth()
    leases._held.clear()
    await held_by(host=socket.gethostname()[:100], pid=2**22 - 1, seconds=30)  # on this machine that is seen at once
    assert await talk.recall("inmemory") == await talk.truth()


async def test_a_lease_is_renewed_by_use_and_costs_nothing_in_between(talk):
    await talk.recall("inmemory")
    before = await database.run(lambda: ProcessLease.objects.get(name="inmemory").expires_at)
    await talk.recall("inmemory")
    assert await database.run(lambda: ProcessLease.objects.get(name="inmemory").expires_at) == before
    leases._held["inmemory"] -= leases.RENEWED_AFTER
    await talk.recall("inmemory")
    assert await database.run(lambda: ProcessLease.objects.get(name="inmemory").expires_at) > before
