"""Telling a broker that there is work. Rows in PostgreSQL are the truth: a word that is lost costs a sweep's time."""

import logging
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

#: Seconds in which a broker that could not be reached is not asked again: nobody waits for it twice.
_PAUSE = 5.0
_away_until = 0.0


def _current_app() -> "Celery":
    from celery import current_app  # noqa: PLC0415  as in tell

    return current_app


_find_app: Callable[[], "Celery"] = _current_app


def use(find_app: Callable[[], "Celery"]) -> None:
    """The project says which Celery application knows the broker; `find_app` is called when there is a word to send."""
    global _find_app  # noqa: PLW0603  one application a process
    _find_app = find_app


def tell(task: str, *args: Any) -> bool:
    """Queue the Celery task of that name; whether the broker took it. Never raises, and waits about a second at most.

    Arguments are ids: whoever does the work reads the rows. It blocks, so async code calls it in a thread.
    """
    global _away_until  # noqa: PLW0603  one broker a process
    if monotonic() < _away_until:
        return False
    # Celery takes 0.1 s to import: a process that never queues anything doesn't wait for it at its start.
    from celery.exceptions import CeleryError  # noqa: PLC0415
    from kombu.exceptions import KombuError  # noqa: PLC0415
    from redis.exceptions import RedisError  # noqa: PLC0415

    try:
        _find_app().send_task(task, args=args, ignore_result=True, retry=False)
    except (CeleryError, KombuError, RedisError, OSError):
        _away_until = monotonic() + _PAUSE
        logger.warning("action=broker_unavailable task=%s; the sweeper will find its work", task)
        return False
    return True


def waiting() -> int | None:
    """Words in the broker that no worker has taken; None for a broker that can't be asked. Blocks as `tell` does."""
    from celery.exceptions import CeleryError  # noqa: PLC0415  as in tell
    from kombu.exceptions import ChannelError, KombuError  # noqa: PLC0415
    from redis.exceptions import RedisError  # noqa: PLC0415

    app = _find_app()
    try:
        with app.connection_for_write() as connection:
            # A worker's own connections wait for a broker that is away.
            connection.ensure_connection(max_retries=1, interval_start=0)
            channel: Any = connection.default_channel
            return int(channel.queue_declare(app.conf.task_default_queue, passive=True).message_count)
    except ChannelError:
        return 0  # a queue is there with its first word
    except (CeleryError, KombuError, RedisError, OSError):
        return None
