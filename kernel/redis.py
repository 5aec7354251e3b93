"""The Redis (or Valkey) clients of this process, one for each event loop.

Redis holds only what can be rebuilt. Every command has a timeout; the pool is bounded; what fails is StoreUnavailable.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from kernel.conf import config
from kernel.errors import StoreUnavailable

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Redis] = WeakKeyDictionary()


def connect(*, max_connections: int | None = None) -> Redis:
    """A new client with its own bounded pool; the caller closes it."""
    options = config().redis
    pool = BlockingConnectionPool.from_url(
        options.url,
        max_connections=max_connections or options.max_connections,
        timeout=options.timeout,
        socket_timeout=options.timeout,
        socket_connect_timeout=options.timeout,
        health_check_interval=15,
        # A second try could append twice; our callers know what a failed command means to them.
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


def client() -> Redis:
    """This event loop's shared client."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        _clients[loop] = connect()
    return _clients[loop]


async def close() -> None:
    """Close this event loop's shared client."""
    shared = _clients.pop(asyncio.get_running_loop(), None)
    if shared is not None:
        await shared.aclose()


@asynccontextmanager
async def guarded() -> AsyncIterator[Redis]:
    """The shared client, with every Redis failure turned into StoreUnavailable."""
    try:
        yield client()
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable from error


def key(*parts: object) -> str:
    """A key of ours: `prefix:part:part`."""
    return ":".join([config().redis.prefix, *map(str, parts)])
