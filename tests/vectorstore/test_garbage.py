"""Vectors whose chunks are gone leave the stores outside PostgreSQL, also when a store was away."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db.models.functions import Now

from kernel import database
from llm.registry import vector_stores
from tests.support import vector_stores as support
from tests.support.vector_stores import DIMENSION, InMemory
from vectorstore import garbage
from vectorstore.backends import backend
from vectorstore.models import Garbage
from vectorstore.values import Entry, SetInfo, Space

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["chroma", "custom"])
def store(request: pytest.FixtureRequest, settings: Any, tmp_path: Any) -> Any:
    vector_stores.add("custom", support.create)
    options = {"path": str(tmp_path)} if request.param == "chroma" else {}
    settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, request.param, options)
    yield request.param
    InMemory.away = False
    vector_stores.remove("custom")


async def filled(store: str) -> tuple[SetInfo, list[UUID]]:
    space = Space(model="m", dimension=DIMENSION)
    info = SetInfo(id=uuid4(), workspace_id=uuid4(), collection_id=uuid4(), backend=store, space=space)
    ids = [uuid4() for _ in range(3)]
    entries = [Entry(chunk_id=each, vector=[1.0, *[0.0] * (DIMENSION - 1)]) for each in ids]
    await backend(store, info.workspace_id).add(info, entries)
    return info, ids


async def throw_away(info: SetInfo, chunk_ids: list[UUID]) -> UUID:
    row = await database.run(
        Garbage.objects.create,
        backend=info.backend,
        set_id=info.id,
        chunk_ids=chunk_ids,
        lease_expires_at=Now(),
    )
    return UUID(str(row.id))


async def held(info: SetInfo) -> int:
    return (await backend(info.backend, info.workspace_id).stats(info)).vectors


async def due(row: UUID) -> None:
    await database.run(Garbage.objects.filter(id=row).update, lease_expires_at=Now())


async def test_what_is_named_goes_and_the_rest_stays(store):
    info, ids = await filled(store)
    await throw_away(info, ids[:2])
    assert await garbage.collect() == 1
    assert await held(info) == 1
    assert await database.run(Garbage.objects.count) == 0


async def test_a_row_without_ids_is_the_whole_set(store):
    info, _ = await filled(store)
    await throw_away(info, [])
    assert await garbage.collect() == 1
    assert await held(info) == 0


async def test_a_store_that_is_away_is_asked_once_a_run_and_again_when_it_is_back(settings):
    vector_stores.add("custom", support.create)
    try:
        info, ids = await filled("custom")
        kept = [await throw_away(info, [each]) for each in ids]
        InMemory.away = True
        assert await garbage.collect() == 0
        assert await database.run(Garbage.objects.count) == 3
        InMemory.away = False
        # Not before its pause is over.
        assert await garbage.collect() == 0
        for row in kept:
            await due(row)
        assert await garbage.collect() == 3
        assert await held(info) == 0
    finally:
        InMemory.away = False
        vector_stores.remove("custom")


async def test_the_pause_grows_with_the_time_it_has_failed(settings):
    vector_stores.add("custom", support.create)
    try:
        info, ids = await filled("custom")
        row = await throw_away(info, ids)
        await database.run(Garbage.objects.filter(id=row).update, created_at=Now() - timedelta(hours=2))
        InMemory.away = True
        await garbage.collect()
        later = Garbage.objects.filter(lease_expires_at__gt=Now() + timedelta(hours=1, minutes=50))
        assert await database.run(later.count) == 1
    finally:
        InMemory.away = False
        vector_stores.remove("custom")


async def test_a_run_takes_no_more_than_its_share(store, monkeypatch):
    monkeypatch.setattr(garbage, "_MOST", 2)
    info, ids = await filled(store)
    for each in ids:
        await throw_away(info, [each])
    assert [await garbage.collect(), await garbage.collect()] == [2, 1]
    assert await held(info) == 0
