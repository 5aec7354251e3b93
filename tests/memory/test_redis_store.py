"""The redis store against the truth while Redis loses, repeats, keeps or refuses what it is given."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import pytest
from django.conf import settings as django_settings
from django.test import AsyncClient
from django.utils import timezone

from accounts.models import Workspace
from chat import streams
from chat.models import ChatHistory, ChatSession, Run
from kernel import database, redis
from kernel.conf import config
from llm.registry import memory_stores
from memory.exchange import forget, open_store, remember
from tests.memory.conversations import Conversation

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def talk(redis_url: str) -> AsyncIterator[Conversation]:
    conversation = await Conversation.begin()
    for number in range(4):
        await conversation.say(f"q{number}", f"a{number}", store="redis")
        await conversation.recall("redis")
    yield conversation
    await redis.close()


@pytest.fixture
async def without_redis(settings):
    """Redis as this process sees it is gone."""
    url = config().redis.url

    async def reach(address: str) -> None:
        await redis.close()
        given = django_settings.DJANGO_CHAIN
        settings.DJANGO_CHAIN = given | {"REDIS": given["REDIS"] | {"URL": address, "TIMEOUT": 0.2}}

    class Switch:
        async def off(self) -> None:
            await reach("redis://127.0.0.1:9/0")

        async def on(self) -> None:
            await reach(url)

    return Switch()


def tail_key(talk: Conversation, epoch: int = 0) -> str:
    return redis.key("memory", f"{{{talk.session_id}}}", "tail", str(epoch))


async def served_from_redis(talk: Conversation) -> bool:
    """Whether the next reader is served by the tail: a row changed behind its back doesn't show."""
    await talk.change(1, content="changed behind its back")
    return "Q: changed behind its back" not in await talk.recall("redis")


async def test_a_tail_that_fits_is_served_without_the_database(talk):
    assert await talk.recall("redis") == await talk.truth()
    assert await served_from_redis(talk)


async def test_redis_flushed_mid_conversation_is_rebuilt(talk):
    await redis.client().flushdb()
    assert await talk.recall("redis") == await talk.truth()
    assert await redis.client().exists(tail_key(talk))
    await talk.say("after?", "still there", store="redis")
    assert await talk.recall("redis") == await talk.truth()
    assert await served_from_redis(talk)


async def test_a_turn_that_was_never_written_through_is_noticed(talk):
    await talk.say("lost?", "lost")
    assert await talk.recall("redis") == await talk.truth()
    await talk.say("lost again?", "lost")
    await talk.say("after?", "kept", store="redis")
    assert await talk.recall("redis") == await talk.truth()


async def test_a_turn_that_was_written_through_twice_is_noticed(talk):
    await talk.tell(await talk.say("twice?", "yes", store="redis"), "redis")
    assert await talk.recall("redis") == await talk.truth()


async def test_an_old_tail_that_comes_back_is_noticed(talk):
    snapshot = await redis.client().dump(tail_key(talk))
    await talk.say("newer?", "yes", store="redis")
    await redis.client().restore(tail_key(talk), 0, snapshot, replace=True)
    assert await talk.recall("redis") == await talk.truth()


async def test_a_longer_view_than_the_tail_holds_comes_from_the_database(talk):
    await redis.client().delete(tail_key(talk))
    await talk.recall("redis", limit=2)
    assert await talk.recall("redis", limit=7) == await talk.truth(limit=7)


@pytest.mark.parametrize("garbage", [b"not json", b"{}", b'[1,2,"USER","x"]'])
async def test_a_damaged_tail_is_rebuilt(talk, garbage):
    await redis.client().rpush(tail_key(talk), garbage)
    assert await talk.recall("redis") == await talk.truth()
    assert await served_from_redis(talk)


async def test_a_key_of_another_type_is_no_tail(talk):
    await redis.client().set(tail_key(talk), "x")
    assert await talk.recall("redis") == await talk.truth()


async def test_without_redis_the_database_is_read_and_later_the_tail_catches_up(talk, without_redis):
    await without_redis.off()
    assert await talk.recall("redis") == await talk.truth()
    await talk.say("while it was away?", "kept", store="redis")
    assert await talk.recall("redis") == await talk.truth()
    await without_redis.on()
    assert await talk.recall("redis") == await talk.truth()
    assert await served_from_redis(talk)


async def test_what_was_deleted_while_redis_was_away_is_not_recalled_when_it_is_back(talk, without_redis):
    await talk.recall("redis")
    await without_redis.off()
    await talk.change(3, is_deleted=True)
    await forget(talk.session_id, epoch=await talk.next_epoch())
    await without_redis.on()
    assert await redis.client().exists(tail_key(talk))  # it could not be dropped
    assert "Q: q1" not in await talk.recall("redis")


async def test_what_was_deleted_while_redis_was_away_is_not_told_to_a_turn_from_before_either(talk, without_redis):
    early = open_store("redis", talk.session_id, leaf=talk.head, epoch=0)
    assert "q1" in [message.text for message in await early.aget_messages(limit=20)]
    await without_redis.off()
    await talk.change(3, is_deleted=True)
    await forget(talk.session_id, epoch=await talk.next_epoch())
    await without_redis.on()
    assert await redis.client().exists(tail_key(talk))
    assert "q1" not in [message.text for message in await early.aget_messages(limit=20)]


async def test_a_turn_that_would_not_believe_redis_does_not_ask_it(talk, without_redis, caplog):
    await without_redis.off()
    late = {"leaf": talk.head, "epoch": 0, "as_of": monotonic() - 10}
    assert "q1" in [
        message.text for message in await open_store("redis", talk.session_id, **late).aget_messages(limit=20)
    ]
    assert not caplog.records, "it noticed that Redis is away"
    in_time = late | {"as_of": monotonic()}
    await open_store("redis", talk.session_id, **in_time).aget_messages(limit=20)
    assert caplog.records


async def test_forgetting_leaves_no_text_in_redis(talk):
    await forget(talk.session_id, epoch=await talk.next_epoch())
    assert not await redis.client().exists(tail_key(talk))


async def test_a_delete_in_a_process_without_sockets_leaves_no_text_in_redis(talk):
    row = await database.run(
        lambda: ChatHistory.objects.select_related("session__user").get(session_id=talk.session_id, order=4)
    )
    await redis.client().set(streams.buffer_key(row.id, 1), b" a1")
    await database.run(
        lambda: Run.objects.create(
            workspace_id=talk.workspace_id,
            session_id=talk.session_id,
            question_id=row.parent_id,
            message=row,
            status="complete",
            lease_expires_at=timezone.now(),
        )
    )
    client = AsyncClient()
    await client.aforce_login(row.session.user)
    response = await client.delete(f"/api/v1/sessions/{talk.session_id}/messages/{row.id}")
    assert response.status_code == 204, response.content
    assert not await redis.client().exists(tail_key(talk), streams.buffer_key(row.id, 1))


@pytest.mark.parametrize("gone", ["session", "workspace"])
async def test_a_deleted_conversation_leaves_no_tail(talk, gone):
    await talk.recall("redis")
    assert await redis.client().exists(tail_key(talk))
    rows = {
        "session": ChatSession.objects.filter(id=talk.session_id),
        "workspace": Workspace.objects.filter(id=talk.workspace_id),
    }[gone]
    await database.run(rows.delete)
    assert not await redis.client().exists(tail_key(talk))
    assert await talk.recall("redis") == []


async def test_a_conversation_is_deleted_also_while_redis_is_away(talk, without_redis):
    await without_redis.off()
    await database.run(ChatSession.objects.filter(id=talk.session_id).delete)
    assert not await database.run(ChatSession.objects.filter(id=talk.session_id).exists)


async def test_a_store_that_fails_keeps_no_other_from_forgetting(talk):
    class Broken:
        async def aclear(self):
            raise ValueError

    memory_stores.add("a_broken_one", lambda config: Broken())
    try:
        await forget(talk.session_id, epoch=await talk.next_epoch())
    finally:
        memory_stores.remove("a_broken_one")
    assert not await redis.client().exists(tail_key(talk))


async def test_a_reader_overtaken_by_a_deletion_brings_nothing_back(talk, monkeypatch):
    await redis.client().delete(tail_key(talk))
    store = open_store("redis", talk.session_id)
    write = store.write

    async def overtaken(*arguments):
        await talk.change(3, is_deleted=True)
        await forget(talk.session_id, epoch=await talk.next_epoch())
        await write(*arguments)

    monkeypatch.setattr(store, "write", overtaken)
    await store.aget_messages(limit=20, before_order=talk.next_order)
    assert "Q: q1" not in await talk.recall("redis")
    # Nor to a turn that was accepted before the deletion and recalls after it; and no text is left.
    early = open_store("redis", talk.session_id, leaf=talk.head, epoch=0)
    assert "q1" not in [message.text for message in await early.aget_messages(limit=20)]
    assert not [key async for key in redis.client().scan_iter(f"*{talk.session_id}*tail:0")]


async def test_a_turn_of_an_earlier_epoch_ends_in_no_later_tail(talk):
    await talk.next_epoch()
    await talk.recall("redis")
    said = await talk.say("begun before?", "yes")
    await remember(talk.session_id, said, definition=[{"type": "memory", "store": "redis"}], epoch=0)
    assert await redis.client().llen(tail_key(talk, epoch=1)) == 8
    assert await talk.recall("redis") == await talk.truth()


async def test_no_tail_is_kept_while_an_earlier_answer_is_under_way(talk):
    await talk.change(8, status="pending", content="")
    await redis.client().delete(tail_key(talk))
    assert await talk.recall("redis") == await talk.truth()
    await talk.change(8, status="complete", content="a3, at last")
    assert (await talk.recall("redis"))[-1] == "A: a3, at last"


async def test_a_tail_is_bounded_and_expires(talk, settings):
    given = django_settings.DJANGO_CHAIN
    settings.DJANGO_CHAIN = given | {"MEMORY": {"MAX_MESSAGES": 4, "REDIS_TTL": 100}}
    for number in range(10):
        await talk.say(f"more{number}", "a", store="redis")
    assert await redis.client().llen(tail_key(talk)) <= 10
    assert 0 < await redis.client().ttl(tail_key(talk)) <= 100
    assert await talk.recall("redis", limit=4) == await talk.truth(limit=4)


async def test_many_readers_and_a_writer_at_once_agree_with_the_database(talk):
    async def read(before: int) -> None:
        assert await talk.recall("redis", before_order=before) == await talk.truth(before_order=before)

    for number in range(5):
        before = talk.next_order
        said = await talk.say(f"busy{number}", "a")
        await asyncio.gather(talk.tell(said, "redis"), *(read(before) for _ in range(4)))
        await read(talk.next_order)


async def test_an_answer_without_a_conversation_tail_starts_none(redis_url):
    talk = await Conversation.begin()
    await talk.say("q", "a", store="redis")
    assert not await redis.client().exists(tail_key(talk))
    await redis.close()
