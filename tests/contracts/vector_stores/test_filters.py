"""A filter leaves nothing out that it wants, in any store, however little passes, and goes by what changed last."""

from typing import Any
from uuid import uuid4

import pytest

from kernel import database
from llm.registry import vector_stores
from tests.contracts.vector_stores.conftest import Made, at, new_set, owner
from tests.support import vector_stores as support
from tests.vectorstore.conftest import CountingEmbedder, document, new_workspace
from vectorstore import documents, outside, refreshing, rows
from vectorstore.backends import Filtering, backend
from vectorstore.candidates import Narrowing
from vectorstore.filters import parse
from vectorstore.manager import VectorStoreManager
from vectorstore.models import ChunkLookup, Collection, Document, StaleMetadata
from vectorstore.scope import Scope
from vectorstore.values import CollectionInfo

pytestmark = pytest.mark.django_db(transaction=True)


class TestFilters:
    """A store may leave a filter out, and must not leave out what the filter wants."""

    YEARS = ((0, 2020, "en", True), (1, 2021, "de", False), (2, 2022, "en", False), (3, 2023.5, "fr", True))
    WHERES = (
        ({"eq": {"lang": "en"}}, {0, 2}),
        ({"eq": {"year": 2021}}, {1}),
        ({"eq": {"year": 2021.0}}, {1}),
        ({"eq": {"draft": True}}, {0, 3}),
        ({"eq": {"draft": 1}}, set()),
        ({"in": {"lang": ["de", "fr", "it"]}}, {1, 3}),
        ({"in": {"year": [2020, 2023.5, "2021"]}}, {0, 3}),
        ({"in": {"draft": [False, "en"]}}, {1, 2}),
        ({"range": {"year": {"gte": 2021, "lt": 2023.5}}}, {1, 2}),
        ({"range": {"year": {"gt": 2021}}}, {2, 3}),
        ({"range": {"inner.deep": {"lte": 1}}}, {0, 1}),
        ({"range": {"day": {"gte": "2024-01-02"}}}, {2, 3}),
        ({"contains": {"tags": "odd"}}, {1, 3}),
        ({"contains": {"lang": "e"}}, {0, 1, 2}),
        ({"and": [{"eq": {"lang": "en"}}, {"range": {"year": {"gte": 2021}}}]}, {2}),
        ({"and": [{"eq": {"lang": "en"}}, {"contains": {"tags": "even"}}]}, {0, 2}),
        ({"or": [{"eq": {"lang": "de"}}, {"eq": {"year": 2020}}]}, {0, 1}),
        ({"or": [{"eq": {"lang": "de"}}, {"contains": {"tags": "even"}}]}, {0, 1, 2}),
        ({"not": {"eq": {"lang": "en"}}}, {1, 3}),
        ({"eq": {"missing": "x"}}, set()),
        ({"eq": {"document.title": "t"}}, {0, 1, 2, 3}),
    )

    @pytest.fixture
    async def made(self, store: str) -> Made:
        made = await new_set(store)
        await made.backend.add(
            made.info,
            [
                made.entry(
                    n,
                    at(10 * n),
                    year=year,
                    lang=lang,
                    draft=draft,
                    inner={"deep": n},
                    day=f"2024-01-0{n}",
                    tags=["odd" if n % 2 else "even"],
                    nothing=None,
                )
                for n, year, lang, draft in self.YEARS
            ],
        )
        return made

    async def test_all_that_is_wanted_is_found(self, made):
        for where, wanted in self.WHERES:
            assert wanted <= set(await made.found(at(0), where=where)), where

    async def test_chroma_and_pinecone_leave_out_what_is_not_wanted(self, made, store):
        if store not in ("chroma", "pinecone"):
            pytest.skip("leaves filters to the look-up")
        expressible = [
            (where, wanted)
            for where, wanted in self.WHERES
            if not any(word in str(where) for word in ("contains", "not", "document.", "day"))
        ]
        for where, wanted in expressible:
            assert set(await made.found(at(0), where=where)) == wanted, where

    async def test_metadata_beyond_a_stores_bound_is_no_reason_to_be_left_out(self, made):
        much = {f"field{n}": "x" * 900 for n in range(60)}
        await made.backend.add(made.info, [made.entry(5, at(0), lang="en", **much)])
        assert 5 in await made.found(at(0), where={"eq": {"lang": "en"}})


class TestDescribing:
    """A store that filters by metadata is told when that changes; one that doesn't needs no telling."""

    @pytest.fixture
    async def made(self, store: str) -> Made:
        made = await new_set(store)
        if not isinstance(made.backend, Filtering):
            pytest.skip("leaves filters to the look-up")
        await made.backend.add(made.info, [made.entry(n, at(10 * n), lang="en", year=2020 + n) for n in range(4)])
        return made

    async def test_filters_go_by_what_it_was_told_last(self, made):
        told = {made.chunks[0]: {"lang": "de"}, made.chunks[2]: {"lang": "de", "year": 1990, "inner": {"x": True}}}
        await made.backend.describe(made.info, told)
        assert await made.found(at(0), where={"eq": {"lang": "de"}}) == [0, 2]
        assert await made.found(at(0), where={"eq": {"lang": "en"}}) == [1, 3]
        assert await made.found(at(0), where={"range": {"year": {"lt": 2022}}}) == [1, 2]
        assert await made.found(at(0), where={"eq": {"inner.x": True}}) == [2]
        assert await made.found(at(0)) == [0, 1, 2, 3]

    async def test_unknown_ids_stay_unknown(self, made):
        await made.backend.describe(made.info, {uuid4(): {"lang": "de"}, made.chunks[3]: {"lang": "de"}})
        assert await made.found(at(0), where={"eq": {"lang": "de"}}) == [3]
        assert (await made.backend.stats(made.info)).vectors == 4
        await made.backend.drop(made.info)
        await made.backend.describe(made.info, {made.chunks[0]: {"lang": "de"}})
        assert await made.found(at(0)) == []

    async def test_too_much_metadata_and_less_again(self, made):
        much = {f"field{n}": "x" * 900 for n in range(60)}
        await made.backend.describe(made.info, {made.chunks[0]: much})
        assert 0 in await made.found(at(0), where={"eq": {"lang": "de"}})
        await made.backend.describe(made.info, {made.chunks[0]: {"lang": "fr"}})
        assert await made.found(at(0), where={"eq": {"lang": "de"}}) == []

    async def test_many_are_told_at_once(self, store):
        made = await new_set(store, chunks=700)
        if not isinstance(made.backend, Filtering):
            pytest.skip("leaves filters to the look-up")
        await made.backend.add(made.info, [made.entry(n, at(n / 10), lang="en") for n in range(700)])
        await made.backend.describe(made.info, {each: {"lang": "de"} for each in made.chunks[1:]})
        assert await made.found(at(0), where={"eq": {"lang": "en"}}) == [0]
        assert len(await made.found(at(0), where={"eq": {"lang": "de"}}, k=700)) == 699


class TestNarrowSearches:
    """A filter that little passes: a store that goes by nearness alone is asked until enough is found."""

    FAR = ("pears", "plums", "limes")
    WHERES = (
        {"eq": {"lang": "de"}},
        {"range": {"year": {"lt": 2000}}},
        {"contains": {"tags": "rare"}},
        {"not": {"eq": {"lang": "en"}}},
        {"and": [{"eq": {"lang": "de"}}, {"contains": {"document.source": "s.md"}}]},
    )

    async def test_all_that_passes_is_found_and_nothing_else(self, store, embedder):
        manager = VectorStoreManager(await new_workspace(), embedder=embedder)
        near = "\n\n".join(f"## Part {n}\n\n" + "warranty in months " * 20 + str(n) for n in range(400))
        common = {"lang": "en", "tags": ["common"], "year": 2020}
        rare = {"lang": "de", "tags": ["rare", "one"], "year": 1990}
        [big, *_] = await manager.ingest(
            [
                document(near, source="near.md", metadata=common),
                *(document(f"about {each}", source=f"{each}.md", metadata=rare) for each in self.FAR),
            ]
        )
        assert big.chunks >= 400
        await self._check(manager)
        # Nobody has told the store of this yet.
        scope = Scope(manager.scope.workspace_id, await owner(manager))
        await scope.run(documents.change, big.document_id, {"metadata": common | {"year": 2021}})
        await self._check(manager)

    async def _check(self, manager: VectorStoreManager) -> None:
        for where in self.WHERES:
            hits = await manager.search("warranty in months", k=3, where=where)
            assert {hit.source for hit in hits} == {f"{each}.md" for each in self.FAR}, where
            assert len(await manager.search("warranty in months", k=2, where=where)) == 2, where
        hits = await manager.search("warranty in months", k=4, documents=[hits[0].document_id])
        assert len(hits) == 1
        for nothing in ({"contains": {"tags": "nothing"}}, {"eq": {"lang": "it"}}):
            assert await manager.search("warranty in months", where=nothing) == [], nothing

    async def test_an_empty_collection_finds_nothing(self, store, embedder):
        manager = VectorStoreManager(await new_workspace(), embedder=embedder)
        await manager.collection()
        assert await manager.search("warranty") == []
        assert await manager.search("warranty", where={"eq": {"lang": "de"}}) == []

    async def test_a_store_is_asked_for_more_until_enough_is_left(self, stores, settings, embedder):
        """One that can be asked for no chunks by their ids, with a bound on how far it goes."""
        vector_stores.add("custom", support.create)
        settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, "custom", {})
        try:
            made = await new_set("custom", chunks=3000)
            await made.backend.add(made.info, [made.entry(n, at(n / 20)) for n in range(3000)])
            last = made.chunks[-1]

            def furnish() -> CollectionInfo:
                for n, each in enumerate(made.chunks):
                    lookup = {"chunk_id": each, "workspace_id": made.info.workspace_id, "document_id": made.document_id}
                    ChunkLookup.objects.create(
                        **lookup, collection_id=made.info.collection_id, terms="x", metadata={"n": n}
                    )
                return rows.info(Collection.objects.get(id=made.info.collection_id))

            found, asked = await database.run(furnish), []
            real = made.backend.search

            async def counted(vectors: Any, vector: Any, *, k: int, where: Any = None) -> Any:
                asked.append((k, where))
                return await real(vectors, vector, k=k)

            made.backend.search = counted  # type: ignore[method-assign]
            which = Narrowing(where=parse({"eq": {"n": 2999}}))
            hits = await outside.nearest(Scope(made.info.workspace_id), made.backend, found, which, at(0), wanted=4)
            assert [hit.chunk_id for hit in hits] == [last]
            assert [k for k, _ in asked] == [4, 16, 64, 256, 1000, 4000]
            assert {where for _, where in asked} == {None}
        finally:
            vector_stores.remove("custom")


class TestChangedMetadata:
    """Searches go by a document's new metadata with the commit, in every store; stores that filter are told of it."""

    @pytest.fixture
    async def manager(self, store: str, embedder: CountingEmbedder) -> VectorStoreManager:
        manager = VectorStoreManager(await new_workspace(), embedder=embedder)
        await manager.ingest([document(each, source=each, metadata={"lang": "en"}) for each in ("apples", "pears")])
        return manager

    async def change(self, manager: VectorStoreManager, source: str, **values: Any) -> None:
        row = await database.run(Document.objects.get, workspace_id=manager.scope.workspace_id, source=source)
        await Scope(manager.scope.workspace_id, await owner(manager)).run(documents.change, row.id, values)

    async def found(self, manager: VectorStoreManager, **fields: Any) -> list[str]:
        return sorted(hit.source for hit in await manager.search("apples pears", where={"eq": fields}, k=10))

    async def test_it_holds_at_once_and_still_once_the_store_was_told(self, manager, store):
        await self.change(manager, "pears", metadata={"lang": "de"})
        for _ in range(2):
            assert await self.found(manager, lang="de") == ["pears"]
            assert await self.found(manager, lang="en") == ["apples"]
            await refreshing.refresh()
        assert not await database.run(StaleMetadata.objects.exists)

    async def test_the_store_itself_knows_it_then(self, manager, store):
        await self.change(manager, "pears", metadata={"lang": "de"})
        await refreshing.refresh()
        into = await manager.collection()
        found = backend(store, manager.scope.workspace_id)
        if not isinstance(found, Filtering):
            pytest.skip("leaves filters to the look-up")
        vector = await CountingEmbedder().query("pears")
        assert len(await found.search(into.active, vector, k=9, where=parse({"eq": {"lang": "de"}}))) == 1

    async def test_so_does_an_ingest_of_the_same_text(self, manager, store):
        [result] = await manager.ingest([document("pears", source="pears", metadata={"lang": "de"}, title="Birnen")])
        assert result.outcome == "updated"
        assert await self.found(manager, lang="de") == ["pears"]
        assert (await manager.search("birnen", mode="text"))[0].title == "Birnen"

    async def test_two_changes_while_one_is_told_end_with_the_last(self, manager, store, monkeypatch):
        found = backend(store, manager.scope.workspace_id)
        if not isinstance(found, Filtering):
            pytest.skip("leaves filters to the look-up")
        told = []
        real = type(found).describe

        async def slow(self_: Any, vectors: Any, metadata: Any) -> None:
            if not told:
                await self.change(manager, "pears", metadata={"lang": "fr"})
            told.append(metadata)
            await real(self_, vectors, metadata)

        monkeypatch.setattr(type(found), "describe", slow)
        await self.change(manager, "pears", metadata={"lang": "de"})
        await refreshing.refresh()
        assert [next(iter(each.values()))["lang"] for each in told] == ["de", "fr"]
        assert not await database.run(StaleMetadata.objects.exists)
        assert await self.found(manager, lang="fr") == ["pears"]
        assert await self.found(manager, lang="de") == []
