"""Store `redis`: the hot tail of a conversation, so that a busy one is recalled without the database.

PostgreSQL stays the truth: a tail that is missing or does not fit (see memory.stores.tail) is rebuilt from it, and
while Redis can't be reached it is read instead. Bounded in length, expires, holds nothing that can't be lost. The epoch
is part of the key: a tail from before a deletion is not read by who comes later, also when Redis was away at the time;
who came earlier believes it for a second alone. Once it is dropped, no reader that had looked at the rows before writes
it again.
"""

import logging
from collections.abc import Sequence
from typing import Any

from kernel import redis
from kernel.conf import config as settings
from kernel.errors import StoreUnavailable
from memory.stores import keys, tail
from memory.stores.cached import CachedStore
from memory.stores.tail import Entry
from memory.truth import TRUSTED, Place

logger = logging.getLogger(__name__)

#: Seconds in which a dropped tail is not written again: between a reader's look at the rows and its write lies less.
_DROPPED = 120

# KEYS: the tail, and the mark of one that was dropped. ARGV: how long the tail lasts, and its entries.
_WRITE = """
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then return end
for at = 2, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[at]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class RedisStore(CachedStore):
    trusted = TRUSTED

    async def read(self, epoch: int, limit: int) -> Sequence[Entry] | None:
        try:
            async with redis.guarded() as client:
                items: Any = await client.lrange(self._key(epoch), -(2 * limit + 2), -1)
        except StoreUnavailable:
            logger.warning("memory: Redis is not available, reading PostgreSQL", extra={"session": self.session_id})
            return None
        return tail.decode(items)

    async def write(self, epoch: int, entries: Sequence[Entry]) -> None:
        try:
            async with redis.guarded() as client:
                written: Any = client.eval(_WRITE, 2, *self._keys(epoch), str(_ttl()), *_encoded(entries))
                await written
        except StoreUnavailable:
            logger.warning("memory: Redis is not available, no tail written", extra={"session": self.session_id})

    async def append(self, epoch: int, entries: Sequence[Entry]) -> None:
        try:
            async with redis.guarded() as client, client.pipeline(transaction=True) as pipe:
                pipe.rpushx(self._key(epoch), *_encoded(entries))
                pipe.ltrim(self._key(epoch), -self.length, -1)
                pipe.expire(self._key(epoch), _ttl())
                await pipe.execute()
        except StoreUnavailable:
            # The tail now ends too early: the next reader sees that and rebuilds it.
            logger.warning("memory: Redis is not available, its tail is behind", extra={"session": self.session_id})

    async def drop(self, epoch: int) -> None:
        """Raises StoreUnavailable: it expires by itself."""
        key, dropped = self._keys(epoch)
        async with redis.guarded() as client, client.pipeline(transaction=True) as pipe:
            pipe.unlink(key)
            if self._place is not None:  # that epoch is over
                pipe.set(dropped, "", ex=_DROPPED)
            await pipe.execute()

    def _keys(self, epoch: int) -> tuple[str, str]:
        return keys.tail(self.session_id, epoch), keys.dropped(self.session_id, epoch)

    def _key(self, epoch: int) -> str:
        return keys.tail(self.session_id, epoch)


def _encoded(entries: Sequence[Entry]) -> list[Any]:  # redis-py types the values of these commands as str alone
    return [tail.encode(entry) for entry in entries]


def _ttl() -> int:
    return max(1, int(settings().memory.redis_ttl))


def create(config: dict[str, Any]) -> RedisStore:
    return RedisStore(config["session_id"], Place.given(config))
