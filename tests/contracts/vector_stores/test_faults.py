"""Stores that are away, silent or set up wrongly: a typed error in time, and all is well when they are back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from django.db.models.functions import Now

from kernel import database
from kernel.errors import Misconfigured, StoreUnavailable
from llm import aliases
from llm.registry import vector_stores
from tests.contracts.vector_stores.conftest import Made, at, filled, new_set, owner
from tests.support import vector_stores as support
from tests.support.vector_stores import InMemory, Stores
from tests.vectorstore.conftest import document, new_workspace
from vectorstore import documents, refreshing
from vectorstore.backends import backend
from vectorstore.errors import EmbeddingMismatch
from vectorstore.manager import VectorStoreManager
from vectorstore.models import StaleMetadata
from vectorstore.scope import Scope
from vectorstore.values import SetInfo, Space

pytestmark = pytest.mark.django_db(transaction=True)


class TestUnavailable:
    async def test_a_custom_store_that_is_away_says_so(self, stores, settings):
        vector_stores.add("custom", support.create)
        try:
            made = await new_set("custom")
            InMemory.away = True
            with pytest.raises(StoreUnavailable):
                await made.backend.health()
        finally:
            InMemory.away = False
            vector_stores.remove("custom")

    async def test_chroma_without_its_server(self, settings):
        options = {"host": "127.0.0.1", "port": 9, "timeout": 2.0}
        settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, "chroma", options)
        made = await new_set("chroma")
        with pytest.raises(StoreUnavailable) as caught:
            await made.found(at(0))
        assert caught.value.retry_after
        assert "127.0.0.1" not in caught.value.message

    async def test_chroma_comes_back_after_its_server_was_away(self, settings, tmp_path):
        server = support.ChromaServer(tmp_path)
        server.start()
        try:
            options = {"host": "127.0.0.1", "port": server.port, "timeout": 3.0}
            settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, "chroma", options)
            made = await filled("chroma", 2)
            server.stop()
            with pytest.raises(StoreUnavailable):
                await made.found(at(0))
            server.start()
            assert await made.found(at(0)) == [0, 1]
        finally:
            server.stop()

    async def test_a_chroma_server_that_never_answers_costs_no_more_than_the_timeout(self, settings, tmp_path):
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        options = {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "timeout": 0.3}
        settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, "chroma", options)
        made = await new_set("chroma")
        async with server:
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await asyncio.wait_for(made.found(at(0)), 5)
            # Nor does it cost others their threads, or their turn to open a store.
            folder = {"path": str(tmp_path), "timeout": 8.0}
            settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, "chroma", folder)
            assert await (await filled("chroma", 2)).found(at(0)) == [0, 1]

    @pytest.mark.parametrize(
        ("name", "options", "match"),
        [
            ("chroma", {}, "'path'"),
            ("chroma", {"path": "a", "host": "b"}, "one of them"),
            ("chroma", {"pth": "a"}, "pth"),
            ("pinecone", {}, "'host' or 'index'"),
            ("pinecone", {"host": "h", "timeout": "1"}, "timeout"),
        ],
    )
    async def test_wrong_options_are_named(self, settings, name, options, match):
        settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, name, options)
        with pytest.raises(Misconfigured, match=match):
            backend(name, uuid4())


async def test_a_store_that_is_away_is_told_when_it_is_back(stores, settings, monkeypatch, embedder):
    support.with_key(monkeypatch)
    name, options = stores.options("pinecone")
    settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, name, options | {"timeout": 2.0})
    try:
        manager = VectorStoreManager(await new_workspace(), embedder=embedder)
        [made] = await manager.ingest([document("pears", metadata={"lang": "en"})])
        scope = Scope(manager.scope.workspace_id, await owner(manager))
        await scope.run(documents.change, made.document_id, {"metadata": {"lang": "de"}})
        stores.pinecone.fail("/vectors/upsert", 500, times=20)
        assert await refreshing.refresh() == 0
        assert len(await manager.search("pears", where={"eq": {"lang": "de"}})) == 1
        stores.pinecone.heal()
        assert await refreshing.refresh() == 0
        await database.run(StaleMetadata.objects.all().update, lease_expires_at=Now())
        assert await refreshing.refresh() == 1
        assert len(await manager.search("pears", where={"eq": {"lang": "de"}})) == 1
        assert not await database.run(StaleMetadata.objects.exists)
    finally:
        stores.pinecone.heal()
        await aliases.close()


class TestPinecone:
    @pytest.fixture
    async def made(self, stores: Stores, settings: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Made]:
        support.with_key(monkeypatch)
        name, options = stores.options("pinecone")
        settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, name, options | {"timeout": 2.0})
        yield await filled("pinecone", 3)
        stores.pinecone.heal()
        stores.pinecone.settle()
        await aliases.close()

    @pytest.mark.parametrize("path", ["/query", "/vectors/upsert", "/vectors/delete"])
    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_what_may_be_repeated_is(self, stores, made, path, status):
        stores.pinecone.fail(path, status, headers={"Retry-After": "0"})
        await made.backend.add(made.info, [made.entry(3, at(30))])
        await made.backend.remove(made.info, [made.chunks[0]])
        assert await made.found(at(0)) == [1, 2, 3]

    @pytest.mark.parametrize("kind", [429, 500, "cut", "slow"])
    async def test_a_service_that_fails_on_is_unavailable(self, stores, made, kind):
        stores.pinecone.fail("/query", kind, times=20, headers={"Retry-After": "7"} if kind == 429 else None)
        with pytest.raises(StoreUnavailable) as caught:
            await made.found(at(0))
        assert caught.value.retry_after
        stores.pinecone.heal()
        assert await made.found(at(0)) == [0, 1, 2]

    async def test_a_wrong_key_is_a_wrong_setting_that_does_not_show_it(self, made, monkeypatch):
        monkeypatch.setenv("PINECONE_API_KEY", "pc-wrong")
        with pytest.raises(Misconfigured, match="PINECONE_API_KEY") as caught:
            await made.found(at(0))
        assert "pc-wrong" not in caught.value.message

    async def test_no_key_is_a_wrong_setting(self, made, monkeypatch):
        monkeypatch.delenv("PINECONE_API_KEY")
        with pytest.raises(Misconfigured, match="PINECONE_API_KEY"):
            await made.found(at(0))

    async def test_an_index_is_found_by_its_name(self, stores, made, settings):
        options = {"index": "scripted", "control_host": stores.pinecone.host}
        settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, "pinecone", options)
        made.backend = backend("pinecone", made.info.workspace_id)
        assert await made.found(at(0)) == [0, 1, 2]
        other = options | {"index": "other"}
        settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, "pinecone", other)
        made.backend = backend("pinecone", made.info.workspace_id)
        with pytest.raises(Misconfigured, match="no such Pinecone index"):
            await made.found(at(0))

    async def test_an_index_of_another_dimension_is_a_mismatch_before_any_write(self, stores, made):
        info = SetInfo(
            id=made.info.id,
            workspace_id=made.info.workspace_id,
            collection_id=made.info.collection_id,
            backend="pinecone",
            space=Space(model="m", dimension=8),
        )
        before = list(stores.pinecone.requests)
        with pytest.raises(EmbeddingMismatch, match="64 dimensions"):
            await made.backend.add(info, [made.entry(0, [1.0] * 8)])
        assert ("POST", "/vectors/upsert") not in stores.pinecone.requests[len(before) :]

    async def test_an_index_of_another_metric_is_refused(self, stores, settings, made, monkeypatch):
        monkeypatch.setattr(stores.pinecone, "metric", "euclidean")
        await aliases.close()
        with pytest.raises(Misconfigured, match="euclidean"):
            await made.backend.add(made.info, [made.entry(0, at(0))])

    async def test_what_is_deleted_is_gone_at_once_though_pinecone_still_shows_it(self, stores, made, embedder):
        manager = VectorStoreManager(made.info.workspace_id, embedder=embedder)
        (added, _) = await manager.ingest([document("the warranty"), document("the apple", source="b.md")])
        stores.pinecone.hold()
        await manager.delete(added.document_id)
        assert [hit.source for hit in await manager.search("warranty", k=5)] == ["b.md"]
        await manager.ingest([document("the new warranty", source="c.md")])
        stores.pinecone.settle()
        assert {hit.source for hit in await manager.search("warranty", k=5)} == {"b.md", "c.md"}
