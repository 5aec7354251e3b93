"""Store `redis`: the hot tail of a conversation, so that a busy one is recalled without the database.

PostgreSQL stays the truth: a tail that is missing or does not fit (see memory.stores.tail) is rebuilt from it, and
while Redis can't be reached it is read instead. Bounded in length, expires, holds nothing that can't be lost.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.messages import BaseMessage

from kernel import database, redis
from kernel.conf import config as settings
from kernel.errors import StoreUnavailable
from memory.messages import message, order_of, role_of
from memory.stores import tail
from memory.stores.tail import Entry
from memory.truth import last_rows, settled_rows

logger = logging.getLogger(__name__)

# A conversation that was forgotten (its generation moved on) after its rows were read must not get the old rows back.
_REPLACE = """
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
for i = 4, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[i]) end
redis.call('LTRIM', KEYS[1], ARGV[2], -1)
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""


class _Read(NamedTuple):
    entries: list[Entry]
    generation: bytes


class RedisStore:
    def __init__(self, session_id: UUID) -> None:
        self._session_id = session_id
        # One hash tag: both keys in one slot of a cluster.
        self._tail = redis.key("memory", f"{{{session_id}}}", "tail")
        self._generation = redis.key("memory", f"{{{session_id}}}", "generation")
        self._ttl = max(1, int(settings().memory.redis_ttl))
        # Twice what any kind asks for: entries without text take places too.
        self._length = 2 * settings().memory.max_messages + 2

    async def aget_messages(self, *, limit: int, before_order: int | None = None) -> list[BaseMessage]:
        if before_order is None or limit < 1:  # a tail can only be checked against a place
            return await self._from_truth(limit, before_order)
        try:
            read = await self._read(limit)
        except StoreUnavailable:
            logger.warning("memory: Redis is not available, reading PostgreSQL", extra={"session": self._session_id})
            return await self._from_truth(limit, before_order)
        fitting = tail.view(read.entries, limit=limit, before_order=before_order)
        if fitting is None:
            return await self._rebuilt(limit, before_order, read.generation)
        return [message(entry.order, entry.role, entry.content, entry.id) for entry in fitting]

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append to a tail that exists; only a reader starts one, because it knows what came before."""
        entries: list[Any] = [  # redis-py types the values of this command as str alone
            tail.encode(Entry(order_of(m), order_of(m), role_of(m), str(m.text), m.id or "")) for m in messages
        ]
        if not entries:
            return
        try:
            async with redis.guarded() as client, client.pipeline(transaction=True) as pipe:
                pipe.rpushx(self._tail, *entries)
                pipe.ltrim(self._tail, -self._length, -1)
                pipe.expire(self._tail, self._ttl)
                await pipe.execute()
        except StoreUnavailable:
            # The tail now ends too early: the next reader sees that and rebuilds it.
            logger.warning("memory: Redis is not available, its tail is behind", extra={"session": self._session_id})

    async def aclear(self) -> None:
        """Drop the tail. Raises StoreUnavailable: a tail that could not be dropped may hold what was deleted."""
        async with redis.guarded() as client, client.pipeline(transaction=True) as pipe:
            pipe.incr(self._generation)
            pipe.expire(self._generation, self._ttl)
            pipe.delete(self._tail)
            await pipe.execute()

    async def _read(self, limit: int) -> _Read:
        async with redis.guarded() as client, client.pipeline(transaction=False) as pipe:
            pipe.get(self._generation)
            # One more than asked for: the last entry may be a place without text.
            pipe.lrange(self._tail, -(limit + 1), -1)
            generation, items = await pipe.execute()
        return _Read(tail.decode(items), generation or b"")

    async def _rebuilt(self, limit: int, before_order: int, generation: bytes) -> list[BaseMessage]:
        rows, settled = await database.run(settled_rows, self._session_id, limit=limit, before_order=before_order)
        if settled:
            entries = tail.build(rows, before_order=before_order, whole=len(rows) < limit)
            await self._replace(entries, generation)
        return [message(*row) for row in rows]

    async def _replace(self, entries: Sequence[Entry], generation: bytes) -> None:
        arguments: list[bytes | int] = [generation, -self._length, self._ttl, *map(tail.encode, entries)]
        try:
            async with redis.guarded() as client:
                await client.eval(_REPLACE, 2, self._tail, self._generation, *arguments)
        except StoreUnavailable:
            logger.warning("memory: Redis is not available, no tail written", extra={"session": self._session_id})

    async def _from_truth(self, limit: int, before_order: int | None) -> list[BaseMessage]:
        rows = await database.run(last_rows, self._session_id, limit=limit, before_order=before_order)
        return [message(*row) for row in rows]


def create(config: dict[str, Any]) -> RedisStore:
    return RedisStore(config["session_id"])
