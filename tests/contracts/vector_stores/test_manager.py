"""Documents through a manager are found, replaced and gone in every store, and its figures and health are told."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from pgvector.django import CosineDistance

from kernel import database
from kernel.errors import NotFound
from llm.registry import vector_stores
from tests.support import vector_stores as support
from tests.support.vector_stores import DIMENSION, InMemory
from tests.vectorstore.conftest import CountingEmbedder, document, new_workspace
from vectorstore import figures
from vectorstore.backends import backend
from vectorstore.manager import VectorStoreManager
from vectorstore.models import Chunk, ChunkVector, Document, VectorSet
from vectorstore.values import Entry, Space

pytestmark = pytest.mark.django_db(transaction=True)


class TestThroughTheManager:
    @pytest.fixture
    async def manager(self, store: str, embedder: CountingEmbedder) -> VectorStoreManager:
        return VectorStoreManager(await new_workspace(), embedder=embedder)

    async def test_a_document_is_found_replaced_and_gone(self, manager, store):
        await manager.ingest([document("# X200\n\nThe warranty lasts 24 months."), document("apples", source="b.md")])
        (hit,) = await manager.search("warranty months", k=1)
        assert "24 months" in hit.text
        await manager.ingest([document("# X200\n\nThe warranty lasts 36 months.")])
        texts = [hit.text for hit in await manager.search("warranty months", k=10)]
        assert any("36" in text for text in texts)
        assert not any("24" in text for text in texts)
        assert await manager.delete(hit.document_id)
        assert [hit.source for hit in await manager.search("warranty months", k=10)] == ["b.md"]

    async def test_scores_are_those_of_postgresql(self, manager, embedder):
        texts = [f"text about {word} and {word}s" for word in ("apple", "bear", "car", "door")]
        await manager.ingest([document(text, source=text) for text in texts])
        hits = await manager.search("bear and door", k=4)

        def exact() -> list[tuple[str, float]]:
            row = ChunkVector.objects.create(
                vector_set=VectorSet.objects.first(), chunk=Chunk.objects.first(), embedding=vectors[0]
            )
            found = []
            for hit, vector in zip(hits, vectors[1:], strict=True):
                ChunkVector.objects.filter(id=row.id).update(embedding=vector)
                (distance,) = ChunkVector.objects.filter(id=row.id).values_list(
                    CosineDistance("embedding", vectors[0]), flat=True
                )
                found.append((hit.text, 1 - distance))
            return found

        asked = await embedder.query("bear and door")
        embedded = [f"{hit.source}\n\n{hit.text}" for hit in hits]
        vectors = [asked, *await embedder.documents(embedded)]
        await database.run(ChunkVector.objects.all().delete)
        for hit, (_, score) in zip(hits, await database.run(exact), strict=True):
            assert hit.score == pytest.approx(score, abs=1e-3)

    async def test_a_canary_never_surfaces_in_another_workspace(self, manager, store):
        other = VectorStoreManager(await new_workspace(), embedder=CountingEmbedder())
        await manager.ingest([document("the canary sings at dawn")])
        await other.ingest([document("the miner digs at dawn")])
        assert [hit.text for hit in await other.search("canary sings", k=10)] == ["the miner digs at dawn"]
        assert [hit.text for hit in await manager.search("canary sings", k=10)] == ["the canary sings at dawn"]

    async def test_vectors_that_are_left_over_find_nothing(self, manager, store):
        await manager.ingest([document("kept")])
        into = await manager.collection()
        found = backend(store, manager.scope.workspace_id)
        if found.beside_rows:
            pytest.skip("vectors go with their rows")
        (vector,) = await CountingEmbedder().documents(["kept"])
        stray = Entry(chunk_id=uuid4(), vector=vector)
        await found.add(into.active, [stray])
        assert [hit.text for hit in await manager.search("kept", k=1)] == ["kept"]

    async def test_figures_are_told_for_each_collection(self, manager, store):
        await manager.ingest([document("one"), document("two", source="b.md")], collection="fruit")
        await manager.collection("empty")
        failed = Document.objects.filter(source="b.md")
        await database.run(lambda: failed.update(state="failed"))
        empty, fruit = await manager.stats()
        assert (empty.name, empty.documents, empty.chunks, empty.vectors) == ("empty", 0, 0, 0)
        assert (fruit.name, fruit.documents, fruit.failed, fruit.waiting) == ("fruit", 2, 1, 0)
        assert fruit.chunks == fruit.vectors == 2
        assert (fruit.space, fruit.backend) == (Space(model="fake:words", dimension=DIMENSION), store)
        assert fruit.bytes == len("one") + len("two")
        assert await manager.stats("fruit") == [fruit]
        assert [each.name for each in await manager.collections()] == ["empty", "fruit"]
        stranger = VectorStoreManager(await new_workspace())
        assert await stranger.stats() == []
        with pytest.raises(NotFound):
            await stranger.stats("fruit")

    async def test_a_store_that_answers_is_well(self, manager, store):
        assert [(each.backend, each.ok, each.code) for each in await manager.health()] == [(store, True, "")]


class TestHealth:
    """A store that is away, silent or broken is told of, and nothing else waits for it."""

    @pytest.fixture
    async def manager(self, settings: Any, embedder: CountingEmbedder) -> AsyncIterator[VectorStoreManager]:
        vector_stores.add("custom", support.create)
        settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, "custom", {})
        made = VectorStoreManager(await new_workspace(), embedder=embedder)
        await made.ingest([document("one")])
        yield made
        InMemory.away = False
        vector_stores.remove("custom")

    async def test_one_that_is_away_has_a_code_and_leaves_only_its_vectors_unknown(self, manager):
        InMemory.away = True
        [health] = await manager.health()
        assert (health.backend, health.ok, health.code) == ("custom", False, "store_unavailable")
        assert health.message == "The store is away."
        [stats] = await manager.stats()
        assert (stats.documents, stats.chunks, stats.vectors) == (1, 1, None)

    async def test_one_that_never_answers_costs_no_more_than_seconds(self, manager, monkeypatch):
        async def silent(*_: Any) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(InMemory, "health", silent)
        monkeypatch.setattr(figures, "_WITHIN", 0.1)
        [health] = await asyncio.wait_for(manager.health(), 10)
        assert (health.ok, health.code) == (False, "store_unavailable")
        [stats] = await asyncio.wait_for(manager.stats(), 10)
        assert stats.vectors is None

    async def test_one_that_fails_in_a_way_of_its_own_does_not_show_how(self, manager, monkeypatch):
        async def broken(*_: Any) -> None:
            raise ValueError("postgres://user:secret@host")

        monkeypatch.setattr(InMemory, "health", broken)
        [health] = await manager.health()
        assert (health.ok, "secret" in health.message) == (False, False)
        assert (await manager.stats())[0].vectors is None

    async def test_one_that_is_set_up_wrongly_says_what_to_mend(self, manager, settings):
        settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, "chroma", {"pth": "x"})
        found = {each.backend: each for each in await manager.health()}
        assert found["custom"].ok
        assert (found["chroma"].ok, found["chroma"].code, "pth" in found["chroma"].message) == (
            False,
            "misconfigured",
            True,
        )

    async def test_probes_ask_the_default_store_once_in_a_while(self, manager, monkeypatch):
        asked = []
        real = InMemory.health

        async def counted(store: InMemory) -> None:
            asked.append(store)
            await real(store)

        monkeypatch.setattr(InMemory, "health", counted)
        seen = await asyncio.gather(*(figures.default_store() for _ in range(20)))
        assert (len(asked), {each.ok for each in seen}) == (1, {True})
        monkeypatch.setattr(figures, "_FRESH", 0.0)
        InMemory.away = True
        assert not (await figures.default_store()).ok
