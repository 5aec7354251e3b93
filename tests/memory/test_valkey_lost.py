"""Valkey emptied, or ended and started again with nothing: the model is told what PostgreSQL has, every time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from redis import Redis

from django_chain.embedded.valkey import Valkey
from kernel import database, redis
from memory import leases
from memory.leases import ProcessLease
from memory.stores import inmemory
from tests.conftest import Person
from tests.memory.test_long_conversations import KINDS, long_talk, recalled
from tests.support.client import Client
from tests.support.scripted_provider import ScriptedProvider
from tests.support.server import Server, rest
from tests.support.stage import no_traceback

STORES = ("postgres", "redis", "inmemory")
Say = Callable[[str], Awaitable[None]]


@pytest.fixture
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server of our own."""
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


async def flushed(valkey: Valkey, say: Say) -> None:
    """Emptied, and then a turn."""
    with Redis.from_url(valkey.url) as client:
        client.flushall()
    await say("after it was emptied?")


async def restarted(valkey: Valkey, say: Say) -> None:
    """Ended, and empty when the next turn comes."""
    await asyncio.to_thread(valkey.kill)
    await asyncio.to_thread(valkey.start)
    await say("after it was empty?")


async def away(valkey: Valkey, say: Say) -> None:
    """Away while a turn is said, and then empty."""
    await asyncio.to_thread(valkey.kill)
    await say("while it was away?")
    await asyncio.to_thread(valkey.start)


FAULTS = (flushed, restarted, away)


# Every kind --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def own_valkey(
    transactional_db: None, valkey: Valkey, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Valkey]:
    """This process's Redis is the one that is lost."""
    monkeypatch.setattr(leases, "_held", {})
    inmemory._sessions.clear()
    await redis.close()
    given = django_settings.DJANGO_CHAIN
    settings.DJANGO_CHAIN = given | {"REDIS": given["REDIS"] | {"URL": valkey.url, "TIMEOUT": 0.5}}
    yield valkey
    await redis.close()


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_kind_recalls_the_same_from_every_store(
    own_valkey: Valkey, fault: Callable[[Valkey, Say], Awaitable[None]]
) -> None:
    talk = await long_talk(40)

    async def say(question: str) -> None:
        turn = await talk.say(question, "Yes.")
        for store in STORES:
            await talk.tell(turn, store)

    async def compare() -> None:
        for kind, (step, _) in KINDS.items():
            expected = await recalled(talk, kind, **step)
            for store in STORES:
                assert await recalled(talk, kind, store, **step) == expected, (kind, store)

    await compare()
    await say("before anything happened?")
    await compare()
    await fault(own_valkey, say)
    await compare()
    await say("and since?")
    await compare()
    assert "and since?" in await recalled(talk, "buffer", "redis")


# A server ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(live_database: None, server_env: dict[str, str], valkey: Valkey) -> Iterator[Server]:
    ProcessLease.objects.all().delete()  # this process's own, of earlier tests
    with Server(server_env | {"REDIS_URL": valkey.url}) as started:
        yield started
        no_traceback(started)


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_next_prompt_of_a_chat_is_the_same_with_every_store(
    server: Server,
    valkey: Valkey,
    person: Person,
    provider: ScriptedProvider,
    fault: Callable[[Valkey, Say], Awaitable[None]],
) -> None:
    chats: dict[str, Client] = {}
    for store in STORES:
        steps = [{"type": "memory", "kind": "buffer", "store": store}, {"type": "llm"}]
        body = {"name": store, "workflow_definition": {"schema": 1, "steps": steps}, "activate": True}
        rest(server, person.token, "POST", "/workflows", json=body)
        chats[store] = person.client(server, person.new_session(server, workflow=store))
        await chats[store].connect()

    async def say(question: str) -> None:
        for store, chat in chats.items():
            assert (await chat.ask(f"{question} [[{store}-{person.user.pk}]]"))["status"] == "complete"

    def prompts() -> list[str]:
        """What the model was sent last in each chat, but for the marks."""
        names = [f"{store}-{person.user.pk}" for store in STORES]
        return [str(provider.exchanges(name)[-1].messages).replace(name, "mark") for name in names]

    for number in range(4):
        await say(f"number {number}?")
    await fault(valkey, say)
    for number in (4, 5):
        await say(f"number {number}?")
        first, *others = prompts()
        assert all(f"number {earlier}?" in first for earlier in range(number))
        assert others == [first, first]
    await asyncio.gather(*(chat.disconnect() for chat in chats.values()))
    await database.run(ProcessLease.objects.all().delete)
