"""The inmemory store is bounded in messages and in conversations."""

from uuid import uuid4

from memory.messages import message
from memory.stores import inmemory


async def test_a_long_conversation_loses_its_beginning(settings):
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"MEMORY": {"MAX_MESSAGES": 4}}
    store = inmemory.create({"session_id": uuid4()})
    await store.aadd_messages([message(order, "USER", f"m{order}") for order in range(1, 11)])
    assert [each.text for each in await store.aget_messages(limit=100)] == ["m7", "m8", "m9", "m10"]


async def test_the_conversation_that_was_longest_untouched_goes_first(monkeypatch):
    monkeypatch.setattr(inmemory, "MAX_SESSIONS", 2)
    first, second, third = (inmemory.create({"session_id": uuid4()}) for _ in range(3))
    for store in (first, second, first, third):
        await store.aadd_messages([message(1, "USER", "here")])
    assert [len(await store.aget_messages(limit=5)) for store in (first, second, third)] == [1, 0, 1]
