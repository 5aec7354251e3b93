"""What every memory store promises, whichever one a workflow names."""

import random
from collections.abc import AsyncIterator

import pytest

from kernel import redis
from memory.exchange import forget, open_store
from tests.memory.conversations import Conversation

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["inmemory", "postgres", "redis"])
async def store(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[str]:
    yield str(request.param)
    await redis.close()


@pytest.fixture
async def talk() -> Conversation:
    return await Conversation.begin()


async def test_a_new_conversation_has_nothing_to_recall(store, talk):
    assert await talk.recall(store) == []


async def test_messages_come_back_oldest_first_with_their_roles(store, talk):
    await talk.recall(store)
    await talk.say("one?", "1", store=store)
    await talk.say("two?", "2", store=store)
    assert await talk.recall(store) == ["Q: one?", "A: 1", "Q: two?", "A: 2"]


async def test_only_the_last_messages_are_recalled(store, talk):
    for number in range(5):
        await talk.say(f"q{number}", f"a{number}", store=store)
        assert await talk.recall(store, limit=3) == (await talk.truth())[-3:]
    assert await talk.recall(store, limit=3) == ["A: a3", "Q: q4", "A: a4"]


async def test_the_question_and_what_came_after_it_are_not_recalled(store, talk):
    await talk.say("one?", "1", store=store)
    await talk.say("two?", "2", store=store)
    assert await talk.recall(store, before_order=3) == ["Q: one?", "A: 1"]
    assert await talk.recall(store, before_order=1) == []


async def test_one_conversation_never_shows_in_another(store, talk):
    other = await Conversation.begin()
    await talk.say("my secret?", "canary", store=store)
    await other.say("hello?", "hi", store=store)
    assert await other.recall(store) == ["Q: hello?", "A: hi"]


async def test_an_answer_that_failed_is_not_recalled_and_one_that_was_stopped_is(store, talk):
    await talk.recall(store)
    await talk.say("fails?", "half a th", status="failed", store=store)
    await talk.say("empty?", "", store=store)
    await talk.say("stopped?", "half", status="stopped", store=store)
    await talk.say("broken off?", "part", status="interrupted", store=store)
    expected = ["Q: fails?", "Q: empty?", "Q: stopped?", "A: half", "Q: broken off?", "A: part"]
    assert await talk.recall(store) == expected


async def test_a_turn_told_twice_is_recalled_once(store, talk):
    await talk.recall(store)
    said = await talk.say("once?", "yes", store=store)
    await talk.tell(said, store)
    assert await talk.recall(store) == ["Q: once?", "A: yes"]


@pytest.mark.parametrize("text", ["☕ café 🙂", "line\nline\r\n\ttab", '{"json": ["x"]}', "x" * 30_000])
async def test_text_comes_back_as_it_was_said(store, talk, text):
    await talk.recall(store)
    await talk.say(text, text, store=store)
    assert await talk.recall(store) == [f"Q: {text}", f"A: {text}"]


async def test_after_forgetting_the_conversation_goes_on(store, talk):
    await talk.say("one?", "1", store=store)
    await forget(talk.session_id)
    await talk.say("two?", "2", store=store)
    assert (await talk.recall(store))[-2:] == ["Q: two?", "A: 2"]


async def test_messages_carry_their_row_and_place(store, talk):
    await talk.say("one?", "1", store=store)
    messages = await open_store(store, talk.session_id).aget_messages(limit=5, before_order=3)
    assert [message.response_metadata["order"] for message in messages] == [1, 2]


@pytest.mark.parametrize("seed", range(4))
async def test_any_conversation_is_recalled_as_the_database_has_it(store, talk, seed):
    draw = random.Random(seed)
    await talk.recall(store)
    for number in range(25):
        status = draw.choice(["complete", "complete", "failed", "stopped"])
        await talk.say(f"q{number}", draw.choice(["", f"a{number}"]), status=status, store=store)
        limit, before = draw.randint(1, 12), draw.choice([None, draw.randint(1, talk.next_order)])
        got = await talk.recall(store, limit=limit, before_order=before)
        assert got == await talk.truth(limit=limit, before_order=before)
