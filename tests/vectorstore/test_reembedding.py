"""A collection's vectors are made anew without a moment in which a search finds less, whatever happens meanwhile."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db.models.functions import Now

from kernel import database
from kernel.conf import Embeddings
from kernel.errors import Conflict, NotFound
from llm import aliases
from llm.embeddings.embedder import Embedder, embedder
from llm.registry import vector_stores
from tests.support import services
from tests.support import vector_stores as support
from tests.support.vector_stores import InMemory
from tests.vectorstore.conftest import document, new_workspace
from vectorstore import garbage, reembedding, rows
from vectorstore.backends import backend as backend_of
from vectorstore.manager import VectorStoreManager
from vectorstore.models import Chunk, ChunkVector, SetState, VectorSet
from vectorstore.scope import Scope
from vectorstore.values import CollectionInfo, Space

pytestmark = pytest.mark.django_db(transaction=True)
NEW = Space(model="fake:wide", dimension=96)
TEXTS = ("red apples", "green pears", "blue plums", "yellow bananas")
_EMBEDDINGS = {
    "PROVIDER": "fake",
    "MODEL": "words",
    "DIMENSION": 64,
    "MODELS": {"wide": {"PROVIDER": "fake", "MODEL": "wide", "DIMENSION": 96}},
}


@pytest.fixture(autouse=True)
async def configured(settings: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"EMBEDDINGS": _EMBEDDINGS}
    vector_stores.add("custom", support.create)
    # One chunk a batch, so that there is a middle to break off in.
    monkeypatch.setattr(reembedding, "_BATCH", 1)
    yield
    InMemory.away = False
    vector_stores.remove("custom")
    await aliases.close()


@pytest.fixture
async def manager() -> VectorStoreManager:
    made = VectorStoreManager(await new_workspace())
    await made.ingest([document(text, source=text) for text in TEXTS])
    return made


async def begin(manager: VectorStoreManager, *, backend: str = "pgvector", space: Space = NEW) -> UUID:
    found = await manager.collection()
    return await manager.scope.run(reembedding.begin, found.id, space, backend)


async def found(manager: VectorStoreManager, query: str = "red apples") -> list[str]:
    return sorted({hit.source for hit in await manager.search(query, k=20)})


async def state(set_id: UUID) -> VectorSet:
    return await database.run(VectorSet.objects.get, id=set_id)


async def expire(set_id: UUID) -> None:
    """As if the lease of a dead worker were over."""
    await database.run(VectorSet.objects.filter(id=set_id).update, lease_expires_at=Now())


class Gated(Embedder):
    """The new model; before the batch after `free` ones it waits to be told."""

    def __init__(self, free: int) -> None:
        super().__init__(Embeddings(provider="fake", model="wide", dimension=96))
        self.free = free
        self.waits, self.opened = asyncio.Event(), asyncio.Event()
        self.embedded: list[str] = []

    async def documents(self, texts: Any) -> list[list[float]]:
        if len(self.embedded) >= self.free:
            self.waits.set()
            await asyncio.wait_for(self.opened.wait(), 20)
        self.embedded += texts
        return await super().documents(texts)


@pytest.mark.parametrize("backend", ["pgvector", "custom"])
async def test_searches_are_switched_to_the_new_model_and_find_all(manager, backend):
    set_id = await begin(manager, backend=backend)
    assert await reembedding.work(set_id) == ("switched", None)
    now = await manager.collection()
    assert (now.active.id, now.active.space, now.active.backend, now.building) == (set_id, NEW, backend, None)
    assert await found(manager) == sorted(TEXTS)
    assert (await manager.search("blue plums", k=1))[0].score > 0.6
    assert await database.run(VectorSet.objects.filter(state=SetState.RETIRED).count) == 1


@pytest.mark.parametrize("backend", ["pgvector", "custom"])
async def test_what_is_added_replaced_and_deleted_meanwhile_is_right_after_the_switch(manager, backend):
    set_id = await begin(manager, backend=backend)
    gate = Gated(free=2)
    working = asyncio.create_task(reembedding.work(set_id, embedder=gate))
    await asyncio.wait_for(gate.waits.wait(), 20)
    hits = await manager.search("red apples", k=20)
    assert sorted(hit.source for hit in hits) == sorted(TEXTS)
    ids = {hit.source: hit.document_id for hit in hits}
    await manager.delete(ids["red apples"])
    await manager.delete(ids["blue plums"])
    await manager.ingest([document("purple grapes", source="new"), document("green limes", source="green pears")])
    wanted = ["green pears", "new", "yellow bananas"]
    assert await found(manager) == wanted
    gate.opened.set()
    assert (await working)[0] == "switched"
    assert await found(manager) == wanted
    assert (await manager.search("green limes", k=1))[0].text == "green limes"
    chunks = await database.run(Chunk.objects.count)
    if backend == "pgvector":
        assert await database.run(ChunkVector.objects.filter(vector_set_id=set_id).count) == chunks
    else:
        await garbage.collect()
        assert set(InMemory.sets[set_id]) == set(
            await database.run(lambda: list(Chunk.objects.values_list("id", flat=True)))
        )


async def test_a_search_that_began_before_the_switch_ends_well(manager):
    before: CollectionInfo = await manager.collection()
    await reembedding.work(await begin(manager))
    assert await database.run(reembedding.clear_retired) == 0
    vector = await embedder().query("red apples")
    hits = await backend_of("pgvector", manager.scope.workspace_id).search(before.active, vector, k=20)
    assert len(hits) == len(TEXTS)


async def test_what_was_replaced_is_removed_in_batches_after_a_while(manager, monkeypatch):
    monkeypatch.setattr(reembedding, "GRACE", timedelta(0))
    monkeypatch.setattr(reembedding, "_REMOVED", 2)
    old = (await manager.collection()).active.id
    await reembedding.work(await begin(manager))
    left = []
    for _ in range(3):
        await database.run(reembedding.clear_retired)
        left.append(await database.run(ChunkVector.objects.filter(vector_set_id=old).count))
    assert left == [2, 0, 0]
    assert not await database.run(VectorSet.objects.filter(id=old).exists)
    assert await found(manager) == sorted(TEXTS)


async def test_an_outside_set_that_was_replaced_goes_whole(manager, monkeypatch):
    monkeypatch.setattr(reembedding, "GRACE", timedelta(0))
    outside = await begin(manager, backend="custom")
    await reembedding.work(outside)
    await reembedding.work(await begin(manager))
    await database.run(reembedding.clear_retired)
    assert InMemory.sets[outside]
    await garbage.collect()
    assert outside not in InMemory.sets
    assert await found(manager) == sorted(TEXTS)


async def test_a_draft_from_before_the_start_is_not_written_without_its_new_vector(manager):
    stale = await manager.collection()
    await begin(manager)

    def write() -> None:
        rows._check_sets(stale)

    with pytest.raises(rows.StaleSets):
        await manager.scope.run(lambda scope: write())


async def test_one_at_a_time_and_not_to_what_it_is_already(manager):
    now = await manager.collection()
    with pytest.raises(Conflict, match="already"):
        await begin(manager, space=now.active.space)
    await begin(manager)
    with pytest.raises(Conflict, match="wait for it, or cancel"):
        await begin(manager)
    foreign = Scope(await new_workspace())
    with pytest.raises(NotFound):
        await foreign.run(reembedding.begin, now.id, NEW, "pgvector")
    with pytest.raises(NotFound):
        await foreign.run(reembedding.cancel, now.id)


async def test_cancelling_stops_the_worker_and_leaves_what_is_found(manager):
    set_id = await begin(manager)
    gate = Gated(free=1)
    working = asyncio.create_task(reembedding.work(set_id, embedder=gate))
    await asyncio.wait_for(gate.waits.wait(), 20)
    collection = (await manager.collection()).id
    assert await manager.scope.run(reembedding.cancel, collection)
    gate.opened.set()
    assert (await working)[0] == "lost"
    assert not await manager.scope.run(reembedding.cancel, collection)
    assert await found(manager) == sorted(TEXTS)
    again = await begin(manager)
    assert (await reembedding.work(again))[0] == "switched"


async def test_two_workers_do_it_once(manager):
    set_id = await begin(manager)
    gate = Gated(free=0)
    working = asyncio.create_task(reembedding.work(set_id, embedder=gate))
    await asyncio.wait_for(gate.waits.wait(), 20)
    assert await reembedding.work(set_id) == ("lost", None)
    assert await database.run(reembedding.overdue) == []
    gate.opened.set()
    assert (await working)[0] == "switched"


async def test_a_failure_has_a_reason_and_a_second_try(manager, monkeypatch):
    set_id = await begin(manager, backend="custom")
    InMemory.away = True
    assert (await reembedding.work(set_id))[0] == "failed"
    assert (await state(set_id)).reason == "The store is away."
    assert await database.run(reembedding.overdue) == []
    InMemory.away = False
    await expire(set_id)
    assert await database.run(reembedding.overdue) == [set_id]
    assert (await reembedding.work(set_id))[0] == "switched"
    assert (await state(set_id)).reason == ""


async def test_a_turn_ends_and_the_next_one_goes_on(manager, monkeypatch):
    monkeypatch.setattr(reembedding, "_TURN", 0.0)
    set_id, after = await begin(manager), None
    collection = (await manager.collection()).id
    done = []
    for _ in TEXTS:
        outcome, after = await reembedding.work(set_id, after)
        assert outcome == "unfinished"
        seen = await reembedding.progress(manager.scope, collection)
        done.append((seen.done, seen.total))
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert await reembedding.work(set_id, after) == ("switched", None)
    assert await reembedding.progress(manager.scope, collection) is None


_WORKER = """
import asyncio, sys, django
django.setup()
from uuid import UUID
from vectorstore import reembedding
from llm.embeddings.embedder import Embedder
reembedding._BATCH = 1
real, done = Embedder.documents, []
async def documents(self, texts):
    if len(done) == 2:
        print("midway", flush=True)
        await asyncio.sleep(60)
    done.append(texts)
    return await real(self, texts)
Embedder.documents = documents
from django.conf import settings
settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"EMBEDDINGS": EMBEDDINGS}
asyncio.run(reembedding.work(UUID(sys.argv[1])))
"""


async def test_a_killed_workers_set_is_taken_over_where_it_was(manager, live_database, server_env):
    set_id = await begin(manager)
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _WORKER.replace("EMBEDDINGS}", f"{_EMBEDDINGS!r}}}"),
        str(set_id),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | services.environment() | server_env | {"DJANGO_SETTINGS_MODULE": "tests.settings"},
    )
    assert worker.stdout is not None
    assert await asyncio.wait_for(worker.stdout.readline(), 60) == b"midway\n"
    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    assert await database.run(ChunkVector.objects.filter(vector_set_id=set_id).count) == 2
    assert await found(manager) == sorted(TEXTS)
    assert await reembedding.work(set_id) == ("lost", None)
    await expire(set_id)
    gate = Gated(free=9)
    assert (await reembedding.work(set_id, embedder=gate))[0] == "switched"
    assert len(gate.embedded) == 2
    assert await found(manager) == sorted(TEXTS)
