"""The connections by which deletions reach Redis end with the server's or the worker's work."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from celery.signals import worker_process_shutdown, worker_shutdown
from django.conf import settings as django_settings
from redis import Redis

import django_chain.celery  # noqa: F401  listens to the signals
from chat.models import ChatSession
from chat.runtime import Runtime
from django_chain.embedded.valkey import Valkey
from kernel import database, redis
from memory import gone
from tests.memory.conversations import Conversation
from tests.support.stage import eventually

pytestmark = pytest.mark.django_db(transaction=True)


async def a_server_ends() -> None:
    await Runtime().close()


async def a_pool_process_ends() -> None:
    worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)


async def a_worker_ends() -> None:
    worker_shutdown.send(sender=None)


@pytest.fixture
async def valkey(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Redis]:
    """A server of our own, so that its clients are this test's."""
    await redis.close()
    monkeypatch.setattr(gone, "_away_until", 0.0)  # an earlier test's Redis was away
    given = django_settings.DJANGO_CHAIN
    with Valkey(tmp_path) as server, Redis.from_url(server.url) as client:
        settings.DJANGO_CHAIN = given | {"REDIS": given["REDIS"] | {"URL": server.url}}
        yield client
        await redis.close()


@pytest.mark.parametrize("end", [a_server_ends, a_pool_process_ends, a_worker_ends])
async def test_no_connection_of_a_deletion_outlives_the_work(valkey: Redis, end: Callable[[], Awaitable[None]]) -> None:
    for _ in range(2):  # a process that goes on after an end deletes as before
        talk = await Conversation.of(2)
        await talk.recall("redis")
        await redis.close()
        assert len(valkey.keys("*:tail:*")) == 1
        await database.run(ChatSession.objects.filter(id=talk.session_id).delete)
        assert valkey.keys("*:tail:*") == []
        await eventually(lambda: len(valkey.client_list()) == 2)
        await end()
        await eventually(lambda: len(valkey.client_list()) == 1)
