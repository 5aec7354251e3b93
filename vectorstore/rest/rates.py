"""How often a person may search and upload over REST, in all server processes together: a bucket each, kept in Redis.

It is full with a minute's worth and refills evenly. While Redis is away there is no bound of this kind: the others hold
(threads, queues, sizes), and nobody is kept from their documents for it.
"""

from math import ceil
from time import monotonic
from typing import Final

from kernel import redis
from kernel.errors import Busy, StoreUnavailable

#: By the generic cell rate algorithm: one time in milliseconds says how much of the bucket is used.
#: Arguments: milliseconds of what is asked for, and of the whole bucket; `look` takes nothing. Gives 0, or the
#: milliseconds to wait.
_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local after = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + ARGV[1]
local wait = math.ceil(after - now - ARGV[2])
if wait > 0 or ARGV[3] == 'look' then return math.max(wait, 0) end
redis.call('SET', KEYS[1], string.format('%.3f', after), 'PX', math.max(math.ceil(after - now), 1))
return 0
"""
_MINUTE = 60_000.0
#: Seconds in which a store that was away isn't asked: nobody waits for it twice.
_PAUSE = 5.0
_away_until = 0.0


async def take(what: str, user_id: int, per_minute: int, *, amount: int = 1, look: bool = False) -> None:
    """Take so many of a person's bucket, or `look` whether they are there. More than the whole bucket takes all of it.

    Raises Busy (`rate_limited`) with the seconds until there are enough; then nothing was taken.
    """
    global _away_until  # noqa: PLW0603  one store a process
    if monotonic() < _away_until:
        return
    asked = min(amount, per_minute) * _MINUTE / per_minute
    try:
        async with redis.guarded() as store:
            key = redis.key("rate", what, user_id)
            wait = await store.eval(_TAKE, 1, key, f"{asked:.3f}", f"{_MINUTE:.0f}", "look" if look else "take")
    except StoreUnavailable:
        _away_until = monotonic() + _PAUSE
        return
    if wait:
        message = f"That is more than {per_minute} {what} a minute; slow down."
        raise Busy(message, code="rate_limited", retry_after=ceil(wait / 1000))
