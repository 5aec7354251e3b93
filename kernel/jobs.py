"""Telling a broker that there is work. Rows in PostgreSQL are the truth: a word that is lost costs a sweep's time."""

import logging
from time import monotonic
from typing import Any

from celery import current_app
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

#: Seconds in which a broker that could not be reached is not asked again: nobody waits for it twice.
_PAUSE = 5.0
_away_until = 0.0


def tell(task: str, *args: Any) -> bool:
    """Queue the Celery task of that name; whether the broker took it. Never raises, and waits about a second at most.

    Arguments are ids: whoever does the work reads the rows.
    """
    global _away_until  # noqa: PLW0603  one broker a process
    if monotonic() < _away_until:
        return False
    try:
        current_app.send_task(task, args=args, ignore_result=True, retry=False)
    except (CeleryError, KombuError, RedisError, OSError):
        _away_until = monotonic() + _PAUSE
        logger.warning("action=broker_unavailable task=%s; the sweeper will find its work", task)
        return False
    return True
