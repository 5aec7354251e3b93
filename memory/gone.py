"""A conversation that is deleted takes its hot tail in Redis along, also where its workspace or its person goes.

Rows go by themselves. Best effort: nobody can ask for the tail of a conversation that is gone, and it expires.
"""

import logging
from functools import cache, partial
from time import monotonic
from typing import Any

from django.db import transaction
from redis import Redis
from redis.exceptions import RedisError

from kernel.conf import config
from memory.stores import keys

logger = logging.getLogger(__name__)

#: Seconds in which Redis isn't asked again once it was away: many sessions may go at once.
_PAUSE = 5.0
_away_until = 0.0


def on_delete(sender: Any, instance: Any, using: str, **_: Any) -> None:
    """Receives `post_delete` of ChatSession; the tail goes with the commit."""
    key = keys.tail(instance.pk, instance.memory_epoch)
    transaction.on_commit(partial(_drop, key), using=using, robust=True)


def _drop(key: str) -> None:
    global _away_until  # noqa: PLW0603  one store a process
    if monotonic() < _away_until:
        return
    try:
        _client(config().redis.url, config().redis.timeout).unlink(key)
    except (RedisError, OSError) as error:
        _away_until = monotonic() + _PAUSE
        logger.warning("action=forget_later store=redis error=%s", type(error).__name__)


@cache
def _client(url: str, timeout: float) -> Redis:
    """One for all threads that delete, to the process's end; kernel.redis is for event loops."""
    return Redis.from_url(url, max_connections=32, socket_timeout=timeout, socket_connect_timeout=timeout)
