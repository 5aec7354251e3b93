"""A conversation that is deleted takes its hot tail in Redis along, also where its workspace or its person goes.

Rows go by themselves. Best effort: nobody can ask for the tail of a conversation that is gone, and it expires.
"""

import logging
from functools import partial
from threading import Lock
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

#: By URL, for all threads that delete: kernel.redis is for event loops.
_clients: dict[str, Redis] = {}
_lock = Lock()


def close() -> None:
    """Close the connections that deletions opened; whoever ends a process calls it. A later deletion opens its own."""
    with _lock:
        clients = list(_clients.values())
        _clients.clear()
    for client in clients:
        client.close()


def on_delete(sender: Any, instance: Any, using: str, **_: Any) -> None:
    """Receives `post_delete` of ChatSession; the tail goes with the commit."""
    key = keys.tail(instance.pk, instance.memory_epoch)
    transaction.on_commit(partial(_drop, key), using=using, robust=True)


def _drop(key: str) -> None:
    global _away_until  # noqa: PLW0603  one store a process
    if monotonic() < _away_until:
        return
    try:
        _client().unlink(key)
    except (RedisError, OSError) as error:
        _away_until = monotonic() + _PAUSE
        logger.warning("action=forget_later store=redis error=%s", type(error).__name__)


def _client() -> Redis:
    options = config().redis
    with _lock:
        if options.url not in _clients:
            timeout = options.timeout
            _clients[options.url] = Redis.from_url(
                options.url, max_connections=32, socket_timeout=timeout, socket_connect_timeout=timeout
            )
        return _clients[options.url]
