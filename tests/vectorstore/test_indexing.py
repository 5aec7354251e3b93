"""A large collection gets an approximate index in the background; what searches find stays right throughout."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.db.models.functions import Now

from kernel import database
from llm import aliases
from tests.support import services
from tests.support.stage import eventually
from tests.vectorstore.conftest import document, new_workspace
from tests.vectorstore.large import LARGE, Placed, configure, fill, name_of, place
from vectorstore import candidates, collections, index_scan, indexing, reembedding, searching, tasks
from vectorstore.candidates import Narrowing
from vectorstore.manager import VectorStoreManager
from vectorstore.models import (
    Chunk,
    ChunkLookup,
    ChunkVector,
    IndexState,
    SetState,
    VectorSet,
)
from vectorstore.scope import Scope
from vectorstore.values import SearchRequest, Space

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
async def configured(settings: Any) -> AsyncIterator[None]:
    configure(settings, INDEX_ROWS=1000)
    yield
    await aliases.close()


@pytest.fixture(autouse=True)
def dropped(transactional_db: None) -> Iterator[None]:
    """The sets of the tests go with their rows; their indexes are looked after here."""
    yield
    VectorSet.objects.all().delete()
    indexing.drop_unneeded()
    assert indexes() == []


@pytest.fixture
async def manager() -> VectorStoreManager:
    """Of a workspace with a large collection, not indexed yet."""
    made = VectorStoreManager(await new_workspace(), embedder=Placed())
    await database.run(fill, await made.collection())
    return made


@pytest.fixture
async def indexed(manager: VectorStoreManager) -> VectorStoreManager:
    assert await indexing.work((await manager.collection()).active.id) == "ready"
    return manager


def indexes() -> list[tuple[str, bool]]:
    """Those on the table of vectors, and whether they are valid."""
    with connection.cursor() as cursor:
        cursor.execute(indexing._INDEXES, [])
        return sorted((name, valid) for name, valid, *_ in cursor.fetchall())


async def state(set_id: UUID) -> VectorSet:
    return await database.run(VectorSet.objects.get, id=set_id)


async def active(manager: VectorStoreManager) -> UUID:
    return (await manager.collection()).active.id


async def found(manager: VectorStoreManager, query: str, **options: Any) -> list[str]:
    return [hit.text for hit in await manager.search(query, **options)]


async def exactly(manager: VectorStoreManager, query: str, **options: Any) -> list[str]:
    """The same without an index."""
    request = searching.checked(query, **options)
    plan = await manager._plan(await manager.collection(), request, searching.narrowing(request))
    near = candidates.nearest(
        plan.collection.active, plan.vector or [], limit=searching.depth(request), narrowing=plan.narrowing
    )
    exact = partial(searching.statement, plan=replace(plan, near=near))
    return [row[4] for row in await manager.scope.ask(exact, planned_once=False)]


async def statements(manager: VectorStoreManager, **options: Any) -> list[str]:
    """What a search sends to PostgreSQL once its question is embedded, and PostgreSQL's plans as the last of them."""
    found = await manager.collection()
    request = SearchRequest(query="c7 asked", **options)
    plan = await manager._plan(found, request, searching.narrowing(request))
    seen: list[tuple[str, Any]] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append((sql, params))
        return execute(sql, params, many, context)

    def unit() -> list[str]:
        scope = manager.scope.tuned(searching.settings(plan))
        with connection.execute_wrapper(watch), scope.wall():
            searching.find(scope, plan)
        lines: list[str] = []
        with scope.wall(), connection.cursor() as cursor:
            for sql, params in seen:
                cursor.execute(f"EXPLAIN {sql}", params)
                lines += [line for (line,) in cursor.fetchall()]
        return [*(sql for sql, _ in seen), "\n".join(lines)]

    return await database.run(unit)


@contextmanager
def open_transaction() -> Iterator[None]:
    """Somebody who has written vectors and doesn't end: no index is finished meanwhile."""
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("LOCK TABLE vectorstore_chunkvector IN ROW EXCLUSIVE MODE")
        yield
        other.rollback()


def builders() -> list[int]:
    """Connections that wait in the middle of building."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE '%CREATE INDEX CONCURRENTLY \"vectorstore_hnsw%'"
            " AND wait_event_type = 'Lock' AND datname = current_database()"
        )
        return [pid for (pid,) in cursor.fetchall()]


async def until_building() -> int:
    return (await eventually(_fresh(builders), deadline=60))[0]


def _fresh(look: Any) -> Any:
    """`look` in a thread of its own, whose connection is given back."""

    def whole() -> Any:
        try:
            return look()
        finally:
            connection.close()

    return whole


async def expire(set_id: UUID) -> None:
    """As if the lease or the pause were over."""
    await database.run(VectorSet.objects.filter(id=set_id).update, index_due_at=Now())


FILTERS = [
    {},
    {"where": {"eq": {"hundredth": 42}}},
    {"where": {"eq": {"half": 1}}},
    # No index helps with these two.
    {"where": {"range": {"n": {"gte": 100}}}},
    {"where": {"range": {"n": {"lt": 3}}}},
    {"where": {"not": {"eq": {"half": 1}}}},
    {"where": {"contains": {"document.source": "9.md"}}},
    {"where": {"eq": {"document.source": "d17.md"}}},
    {"where": {"eq": {"nothing": 1}}},
]


class TestSearching:
    async def test_the_index_is_asked_once_it_is_ready_and_not_before(self, manager):
        set_id = await active(manager)
        *sent, plan = await statements(manager)
        assert name_of(set_id) not in plan
        assert len(sent) == 2  # whose rows are seen; the search
        assert await indexing.work(set_id) == "ready"
        for options in FILTERS[:3]:
            *sent, plan = await statements(manager, k=10, **options)
            assert f"Index Scan using {name_of(set_id)}" in plan, plan
            assert len(sent) == (3 if options else 2)  # a filter is tried on the nearest first
        *sent, plan = await statements(manager, mode="text")
        assert name_of(set_id) not in plan
        # How common words are is asked once in a while.
        assert len([each for each in sent if "pg_stats" not in each]) == 2

    @pytest.mark.parametrize("where", FILTERS)
    async def test_it_finds_what_comparing_all_finds(self, indexed, where):
        right = wanted = 0
        for number in range(30):
            query = f"c{number * 2} asked"
            exact = await exactly(indexed, query, k=10, **where)
            right += len(set(await found(indexed, query, k=10, **where)) & set(exact))
            wanted += len(exact)
        assert right >= 0.99 * wanted
        assert (wanted == 0) == (where == FILTERS[-1])

    @pytest.mark.parametrize("wanted_first", [True, False])
    async def test_a_filter_that_is_wide_and_far_from_the_question(self, indexed, monkeypatch, wanted_first):
        """None of the nearest hundreds pass: it goes on in the index, or compares what passes."""
        monkeypatch.setattr(index_scan, "_LEAST_EF", 10)
        if wanted_first:
            few = index_scan.Depth(ef=40, wanted=15, further=40, few=0, scarce=15)
            monkeypatch.setattr(index_scan, "depth", lambda vectors, limit, **_: few)

        def mark() -> None:
            near = Chunk.objects.filter(text__regex=r"^c(7|8|9) ").values("pk")
            ChunkLookup.objects.filter(chunk__in=near).update(metadata={"near": True})

        await database.run(mark)
        where = {"not": {"eq": {"near": True}}}
        hits = await found(indexed, "c7 asked", k=10, where=where)
        exact = await exactly(indexed, "c7 asked", k=10, where=where)
        assert len(set(hits) & set(exact)) >= 9
        assert not any(re.match(r"c(7|8|9) ", hit) for hit in hits)

    async def test_some_documents_of_many(self, indexed):
        (hit,) = await indexed.search("c7 m7", k=1)
        assert set(await found(indexed, "c30 asked", k=50, documents=[hit.document_id])) == {
            f"c{number} m{number}" for number in range(10)
        }

    async def test_the_scores_are_those_of_the_whole_vectors(self, indexed):
        best, *_ = await indexed.search("c7 m67", k=10)
        assert best.text == "c7 m67"
        assert best.score == pytest.approx(1, abs=1e-6)

    async def test_more_than_the_index_keeps_at_once(self, indexed):
        set_info = (await indexed.collection()).active

        def look(scope: Scope) -> int:
            text, values = index_scan.nearest(set_info, place("c7 asked"), limit=1200, narrowing=Narrowing())
            with connection.cursor() as cursor:
                cursor.execute(text, values)
                return len({chunk_id for chunk_id, _ in cursor.fetchall()})

        assert await indexed.scope.tuned(index_scan.settings(set_info, 1200)).run(look) == 1200

    async def test_hybrid_asks_it_too(self, indexed):
        hits = await indexed.search("c7 asked", mode="hybrid", k=10)
        assert {hit.text for hit in hits} == set(await exactly(indexed, "c7 asked", mode="hybrid", k=10))
        *_, plan = await statements(indexed, mode="hybrid")
        assert f"Index Scan using {name_of(await active(indexed))}" in plan

    async def test_what_is_added_changed_and_deleted_afterwards(self, indexed):
        await indexed.ingest([document("c7 new", source="new.md", metadata={"hundredth": 1000})])
        for options in ({}, {"where": {"eq": {"hundredth": 1000}}}):
            assert (await found(indexed, "c7 new", k=3, **options))[0] == "c7 new"
        await indexed.ingest([document("c9 changed", source="new.md")])
        assert "c7 new" not in await found(indexed, "c7 new", k=50)
        (hit, *_) = await indexed.search("c9 changed", k=1)
        assert hit.text == "c9 changed"
        await indexed.delete(hit.document_id)
        assert "c9 changed" not in await found(indexed, "c9 changed", k=50)

    async def test_deleted_passages_take_no_places(self, indexed):
        """All but one cluster and a passage: the index still has them, and it is searched as if it had not."""

        def thin() -> None:
            gone = ChunkVector.objects.exclude(chunk__text__regex="^(c30 |c7 m67$)").values_list("pk", flat=True)
            # Not in one statement: PostgreSQL may not let one take so long.
            pks = list(gone)
            for start in range(0, len(pks), 500):
                ChunkVector.objects.filter(pk__in=pks[start : start + 500]).delete()

        await database.run(thin)
        for options in FILTERS[:3]:
            hits = await found(indexed, "c7 m67", k=20, **options)
            assert hits == await exactly(indexed, "c7 m67", k=20, **options)
            if not options:
                assert hits[0] == "c7 m67"
                assert len(hits) == 20

    async def test_the_canary_of_another_workspace_never_surfaces(self, indexed):
        stranger = VectorStoreManager(await new_workspace(), embedder=Placed())
        await stranger.ingest([document("c7 canary", source="secret.md", metadata={"half": 1})])
        theirs = await stranger.collection()
        for options in FILTERS:
            for mode in ("vector", "hybrid"):
                for named in (None, theirs.id):
                    hits = await found(indexed, "c7 canary", k=50, mode=mode, collection=named, **options)
                    assert "c7 canary" not in hits

    @pytest.mark.parametrize("where", FILTERS[:3])
    async def test_the_walls_hold_in_front_of_an_index(self, indexed, where):
        ours = await indexed.collection()
        stranger = Scope(await new_workspace())
        request = SearchRequest(query="c7 asked", **where)
        plan = await indexed._plan(ours, request, searching.narrowing(request))
        assert await indexed.scope.run(searching.find, plan)
        assert await stranger.run(searching.find, plan) == []
        assert await stranger.run(lambda _: searching.find(indexed.scope, plan)) == []


class TestBuilding:
    async def test_ingesting_tells_of_a_collection_that_has_become_large(self, settings):
        configure(settings, INDEX_ROWS=3)
        manager = VectorStoreManager(await new_workspace(), embedder=Placed())
        set_id = await active(manager)
        await manager.ingest([document(f"c{n} m", source=f"{n}") for n in range(2)])
        assert (await state(set_id)).index == IndexState.NONE
        await expire(set_id)
        await manager.ingest([document("c3 m", source="3")])
        assert (await state(set_id)).index == IndexState.BUILDING
        assert await indexing.work(set_id) == "ready"
        row = await state(set_id)
        assert (row.index, row.index_type, row.index_rows, row.reason) == (IndexState.READY, "halfvec", 3, "")

    async def test_the_sweep_finds_large_collections_and_tells_of_each_once_a_minute(self, manager):
        small = VectorStoreManager(await new_workspace(), embedder=Placed())
        await small.ingest([document("c1 m")])
        set_id = await active(manager)
        assert await database.run(indexing.overdue) == [set_id]
        assert await database.run(indexing.overdue) == []
        await expire(set_id)
        assert await database.run(indexing.overdue) == [set_id]
        await sync_to_async(_fresh(lambda: tasks.build_index(str(set_id))), thread_sensitive=False)()
        await expire(set_id)
        assert await database.run(indexing.overdue) == []
        assert indexes_of(await database.run(indexes)) == [name_of(set_id)]

    async def test_stats_say_what_is_indexed(self, indexed):
        stats = await indexed.scope.run(collections.stats, "default")
        assert [(each["index"], each["index_rows"]) for each in stats["vector_sets"]] == [("ready", LARGE)]
        (told,) = await indexed.stats()
        assert (told.index, told.index_rows, told.vectors) == ("ready", LARGE, LARGE)

    async def test_numbers_of_32_bits_by_a_setting(self, manager, settings):
        configure(settings, INDEX_TYPE="vector")
        set_id = await active(manager)
        assert await indexing.work(set_id) == "ready"
        assert (await state(set_id)).index_type == "vector"
        # What a later index would hold doesn't matter to one that is there.
        configure(settings, INDEX_TYPE="halfvec")
        *_, plan = await statements(manager)
        assert name_of(set_id) in plan

    async def test_searches_are_right_while_it_is_built(self, manager):
        set_id = await active(manager)
        with open_transaction():
            building = asyncio.create_task(indexing.work(set_id))
            await until_building()
            assert (await state(set_id)).index == IndexState.BUILDING
            await manager.ingest([document("c7 meanwhile", source="new.md")])
            hits = await found(manager, "c7 meanwhile", k=10)
            assert hits == await exactly(manager, "c7 meanwhile", k=10)
        assert await building == "ready"
        assert (await found(manager, "c7 meanwhile", k=10)) == hits

    async def test_two_builders_make_one_index(self, manager):
        set_id = await active(manager)
        other = VectorStoreManager(await new_workspace(), embedder=Placed())
        await other.ingest([document("c1 m")])
        with open_transaction():
            building = asyncio.create_task(indexing.work(set_id))
            await until_building()
            assert await indexing.work(set_id) == "taken"
            # One at a time in a database.
            assert await indexing.work(await active(other)) == "busy"
            # Even if its lease ran out: PostgreSQL knows who builds.
            await expire(set_id)
            assert await indexing.work(set_id) == "busy"
            assert await database.run(indexing.drop_unneeded) == 0
        assert await building == "ready"
        assert await indexing.work(set_id) == "ready"
        assert await database.run(indexes) == [(name_of(set_id), True)]

    async def test_what_a_dead_connection_left_is_built_anew(self, manager):
        set_id = await active(manager)
        with open_transaction():
            building = asyncio.create_task(indexing.work(set_id))
            pid = await until_building()
            await database.run(_terminate, pid)
            assert await building == "failed"
            assert await database.run(indexes) == [(name_of(set_id), False)]
            row = await state(set_id)
            assert (row.index, row.reason) == (
                IndexState.FAILED,
                "The connection to PostgreSQL was lost while the index was built.",
            )
            assert await found(manager, "c7 asked", k=10) == await exactly(manager, "c7 asked", k=10)
        assert await indexing.work(set_id) == "ready"
        assert await database.run(indexes) == [(name_of(set_id), True)]

    async def test_what_a_killed_worker_began_is_found_when_postgresql_is_done(
        self, manager, live_database, server_env
    ):
        set_id = await active(manager)
        with open_transaction():
            worker = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                "import sys, django; django.setup(); from vectorstore import tasks; tasks.build_index(sys.argv[1])",
                str(set_id),
                env=os.environ | services.environment() | server_env | {"DJANGO_SETTINGS_MODULE": "tests.settings"},
            )
            await until_building()
            worker.send_signal(signal.SIGKILL)
            await worker.wait()
            assert await found(manager, "c7 asked", k=10) == await exactly(manager, "c7 asked", k=10)
            assert await indexing.work(set_id) == "taken"
            await expire(set_id)
            assert await indexing.work(set_id) == "busy"
        await eventually(_fresh(lambda: indexes() == [(name_of(set_id), True)]), deadline=60)
        assert await indexing.ensure(set_id)
        assert (await state(set_id)).index == IndexState.READY
        *_, plan = await statements(manager)
        assert name_of(set_id) in plan

    async def test_a_failure_has_a_reason_and_tries_further_and_further_apart(self, manager, monkeypatch):
        monkeypatch.setattr(indexing, "_LOCK_WAIT", "50ms")
        set_id = await active(manager)
        with open_transaction():
            pauses = []
            for _ in range(3):
                assert await indexing.work(set_id) == "failed"
                assert await database.run(indexing.overdue) == []
                pauses.append(await database.run(_pause, set_id))
                await expire(set_id)
                assert await database.run(indexing.overdue) == [set_id]
        assert pauses == pytest.approx([60, 240, 960], abs=20)
        assert "has been open for long" in (await state(set_id)).reason
        assert await indexing.work(set_id) == "ready"
        row = await state(set_id)
        assert (row.reason, row.index_attempts) == ("", 0)

    async def test_vectors_that_are_too_long_stay_without(self, manager):
        set_id = await active(manager)
        await database.run(VectorSet.objects.filter(id=set_id).update, dimension=4001)
        assert await indexing.work(set_id) == "failed"
        assert (
            await state(set_id)
        ).reason == "Vectors of 4001 dimensions can't be indexed; searches compare all of them."
        assert await indexing.ensure(set_id)

    async def test_a_set_that_is_given_up_is_not_built_to_the_end(self, manager, monkeypatch):
        monkeypatch.setattr(indexing, "_LEASE", indexing.timedelta(seconds=0.4))
        set_id = await active(manager)
        with open_transaction():
            building = asyncio.create_task(indexing.work(set_id))
            await until_building()
            await database.run(VectorSet.objects.filter(id=set_id).update, state=SetState.RETIRED)
            async with asyncio.timeout(20):
                assert await building == "taken"
            assert await database.run(builders) == []
        assert await database.run(indexing.drop_unneeded) == 1


class TestDropping:
    async def test_of_a_deleted_collection(self, indexed):
        found = await indexed.collection()

        def delete(scope: Scope) -> None:
            while not collections.delete_some(scope, found.id):
                pass

        await indexed.scope.run(delete)
        await database.run(tasks.tend_indexes)
        assert await database.run(indexes) == []

    async def test_of_a_collection_that_has_become_small(self, indexed, settings):
        set_id = await active(indexed)
        assert await database.run(indexing.drop_unneeded) == 0
        some = ChunkVector.objects.filter(vector_set_id=set_id).values("pk")

        def shrink(to: int) -> None:
            left = list(some.order_by("pk").values_list("pk", flat=True)[to:])
            ChunkVector.objects.filter(pk__in=left).delete()
            with indexing._alone() as alone:
                alone.execute("VACUUM vectorstore_chunkvector")

        # Not right below the bound: it would come and go.
        await database.run(shrink, 600)
        assert await database.run(indexing.drop_unneeded) == 0
        await database.run(shrink, 400)
        assert await database.run(indexing.drop_unneeded) == 1
        assert await database.run(indexes) == []
        assert (await state(set_id)).index == IndexState.NONE
        assert await found(indexed, "c7 asked", k=10) == await exactly(indexed, "c7 asked", k=10)

    async def test_an_index_that_somebody_dropped_is_built_again(self, indexed):
        set_id = await active(indexed)

        def drop() -> None:
            with connection.cursor() as cursor:
                cursor.execute(f'DROP INDEX "{name_of(set_id)}"')

        await database.run(drop)
        assert await found(indexed, "c7 asked", k=10) == await exactly(indexed, "c7 asked", k=10)
        await database.run(indexing.drop_unneeded)
        assert await database.run(indexing.overdue) == [set_id]
        assert await indexing.work(set_id) == "ready"


class TestReembedding:
    async def test_the_new_set_is_indexed_before_it_is_searched_and_the_old_index_goes(self, settings, monkeypatch):
        configure(settings, INDEX_ROWS=100)
        manager = VectorStoreManager(await new_workspace(), embedder=Placed())
        before = await manager.collection()
        await database.run(fill, before, 200)
        assert await indexing.work(before.active.id) == "ready"
        space = Space(model="fake:wide", dimension=96)
        set_id = await manager.scope.run(reembedding.begin, before.id, space, "pgvector")
        with open_transaction():
            working = asyncio.create_task(reembedding.work(set_id))
            await until_building()
            assert (await manager.collection()).active.id == before.active.id
        assert (await working)[0] == "switched"
        now = (await VectorStoreManager(before.workspace_id).collection()).active
        assert (now.id, now.index, now.index_rows) == (set_id, IndexState.READY, 200)
        monkeypatch.setattr(reembedding, "GRACE", reembedding.timedelta(0))
        assert await database.run(indexing.drop_unneeded) == 0
        await database.run(reembedding.clear_retired)
        assert await database.run(indexing.drop_unneeded) == 1
        assert await database.run(indexes) == [(name_of(set_id), True)]

    async def test_cancelling_stops_the_build(self, settings, monkeypatch):
        configure(settings, INDEX_ROWS=100)
        monkeypatch.setattr(reembedding, "_LEASE", reembedding.timedelta(seconds=0.4))
        manager = VectorStoreManager(await new_workspace(), embedder=Placed())
        before = await manager.collection()
        await database.run(fill, before, 200)
        set_id = await manager.scope.run(
            reembedding.begin, before.id, Space(model="fake:wide", dimension=96), "pgvector"
        )
        with open_transaction():
            working = asyncio.create_task(reembedding.work(set_id))
            await until_building()
            await manager.scope.run(reembedding.cancel, before.id)
            async with asyncio.timeout(20):
                assert (await working)[0] == "lost"
        assert (await manager.collection()).active.id == before.active.id


def indexes_of(found: list[tuple[str, bool]]) -> list[str]:
    return [name for name, _ in found]


def _terminate(pid: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])


def _pause(set_id: UUID) -> float:
    """Seconds until it is looked at again."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM index_due_at - now()) FROM vectorstore_vectorset WHERE id = %s", [set_id]
        )
        return float(cursor.fetchone()[0])
