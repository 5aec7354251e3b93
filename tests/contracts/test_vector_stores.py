"""What every vector store promises, whichever one a collection's vectors are in.

Chroma is the real thing, in a folder and as its server; Pinecone is a local stand-in that the real SDK talks to.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db.models.functions import Now
from pgvector.django import CosineDistance

from accounts.models import Workspace
from kernel import database
from kernel.errors import Misconfigured, NotFound, StoreUnavailable
from llm import aliases
from llm.registry import vector_stores
from tests.support import vector_stores as support
from tests.support.vector_stores import DIMENSION, NAMES, InMemory, Stores
from tests.vectorstore.conftest import CountingEmbedder, document, new_workspace
from vectorstore import documents, figures, outside, refreshing, rows
from vectorstore.backends import Backend, Filtering, Picking, backend
from vectorstore.candidates import Narrowing
from vectorstore.errors import EmbeddingMismatch
from vectorstore.filters import parse
from vectorstore.manager import VectorStoreManager
from vectorstore.models import Chunk, ChunkLookup, ChunkVector, Collection, Document, StaleMetadata, VectorSet
from vectorstore.scope import Scope
from vectorstore.values import CollectionInfo, Entry, SetInfo, Space

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with support.started(tmp_path_factory.mktemp("stores")) as made:
        yield made


@pytest.fixture(params=NAMES)
async def store(
    request: pytest.FixtureRequest, stores: Stores, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """The name of the backend that new collections get."""
    support.with_key(monkeypatch)
    vector_stores.add("custom", support.create)
    name, options = stores.options(request.param)
    settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, name, options)
    yield name
    InMemory.away = False
    vector_stores.remove("custom")
    # Connections belong to this test's event loop.
    await aliases.close()


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder(dimension=DIMENSION)


@dataclass
class Made:
    """A set with chunks to put vectors of into it."""

    info: SetInfo
    backend: Backend
    chunks: list[UUID]
    document_id: UUID

    def entry(self, n: int, vector: list[float], **metadata: Any) -> Entry:
        return Entry(chunk_id=self.chunks[n], vector=vector, metadata=metadata)

    async def found(self, vector: list[float], *, k: int = 10, where: Any = None) -> list[int]:
        hits = await self.backend.search(self.info, vector, k=k, where=None if where is None else parse(where))
        return [self.chunks.index(hit.chunk_id) for hit in hits]


async def new_set(store: str, workspace_id: UUID | None = None, *, chunks: int = 12) -> Made:
    workspace = workspace_id or await new_workspace()

    def rows() -> tuple[VectorSet, UUID, list[UUID]]:
        collection = Collection.objects.create(workspace_id=workspace, name=str(uuid4()))
        made = VectorSet.objects.create(
            workspace_id=workspace, collection=collection, backend=store, embedding_model="m", dimension=DIMENSION
        )
        doc = Document.objects.create(workspace_id=workspace, collection=collection, title="t", source="s")
        texts = [
            Chunk(workspace_id=workspace, collection=collection, document=doc, position=n, text="x", start=0, end=1)
            for n in range(chunks)
        ]
        return made, doc.id, [each.id for each in Chunk.objects.bulk_create(texts)]

    row, document_id, ids = await database.run(rows)
    info = SetInfo(
        id=row.id,
        workspace_id=workspace,
        collection_id=row.collection_id,
        backend=store,
        space=Space(model="m", dimension=DIMENSION),
    )
    return Made(info, backend(store, workspace), ids, document_id)


def at(degrees: float) -> list[float]:
    """A vector of length 2 in a plane: the cosine similarity to `at(0)` is the angle's cosine."""
    angle = math.radians(degrees)
    return [2 * math.cos(angle), 2 * math.sin(angle), *[0.0] * (DIMENSION - 2)]


async def filled(store: str, count: int = 12) -> Made:
    made = await new_set(store)
    await made.backend.add(made.info, [made.entry(n, at(10 * n)) for n in range(count)])
    return made


class TestSets:
    async def test_a_new_set_is_empty(self, store):
        made = await new_set(store)
        assert await made.found(at(0)) == []
        assert (await made.backend.stats(made.info)).vectors == 0
        await made.backend.remove(made.info, [made.chunks[0]])
        await made.backend.drop(made.info)

    async def test_the_nearest_come_first_with_the_cosine_as_score(self, store):
        made = await new_set(store)
        order = [3, 0, 7, 1, 10, 2, 9, 4, 11, 5, 8, 6]
        await made.backend.add(made.info, [made.entry(n, at(10 * n)) for n in order])
        hits = await made.backend.search(made.info, at(0), k=12)
        assert [made.chunks.index(hit.chunk_id) for hit in hits] == list(range(12))
        for n, hit in enumerate(hits):
            assert hit.score == pytest.approx(math.cos(math.radians(10 * n)), abs=1e-3)
        assert hits[-1].score < 0

    @pytest.mark.parametrize("k", [1, 5, 12, 50])
    async def test_no_more_than_asked_for(self, store, k):
        made = await filled(store)
        assert await made.found(at(0), k=k) == list(range(min(k, 12)))

    async def test_a_known_id_takes_the_place_of_what_it_had(self, store):
        made = await filled(store, 3)
        await made.backend.add(made.info, [made.entry(0, at(50))])
        assert await made.found(at(0)) == [1, 2, 0]
        assert (await made.backend.stats(made.info)).vectors == 3

    async def test_removed_ids_are_not_found_and_unknown_ones_no_error(self, store):
        made = await filled(store, 4)
        await made.backend.remove(made.info, [made.chunks[0], made.chunks[2], uuid4()])
        assert await made.found(at(0)) == [1, 3]
        assert (await made.backend.stats(made.info)).vectors == 2
        await made.backend.remove(made.info, [])

    async def test_a_dropped_set_is_empty_and_can_be_filled_again(self, store):
        made = await filled(store, 3)
        await made.backend.drop(made.info)
        assert await made.found(at(0)) == []
        assert (await made.backend.stats(made.info)).vectors == 0
        await made.backend.drop(made.info)
        await made.backend.add(made.info, [made.entry(1, at(0))])
        assert await made.found(at(0)) == [1]

    async def test_sets_know_nothing_of_each_other(self, store):
        one = await filled(store, 3)
        same_workspace = await new_set(store, one.info.workspace_id)
        other = await new_set(store)
        await other.backend.add(other.info, [other.entry(0, at(0))])
        await same_workspace.backend.add(same_workspace.info, [same_workspace.entry(5, at(0))])
        assert [len(await each.found(at(0))) for each in (one, same_workspace, other)] == [3, 1, 1]
        await one.backend.drop(one.info)
        assert await same_workspace.found(at(0)) == [5]
        assert await other.found(at(0)) == [0]

    async def test_many_at_once_are_all_kept(self, store):
        made = await new_set(store, chunks=1200)
        await made.backend.add(made.info, [made.entry(n, at(n / 10)) for n in range(1200)])
        assert (await made.backend.stats(made.info)).vectors == 1200
        assert await made.found(at(0), k=3) == [0, 1, 2]
        await made.backend.remove(made.info, made.chunks[1:])
        assert await made.found(at(0), k=3) == [0]

    async def test_work_at_the_same_time_is_all_done(self, store):
        made = await new_set(store)
        await asyncio.gather(*(made.backend.add(made.info, [made.entry(n, at(10 * n))]) for n in range(12)))
        found = await asyncio.gather(*(made.found(at(10 * n), k=1) for n in range(12)))
        assert found == [[n] for n in range(12)]

    async def test_a_vector_without_length_finds_nothing_and_is_found_by_nothing(self, store):
        made = await filled(store, 2)
        nothing = [0.0] * DIMENSION
        await made.backend.add(made.info, [made.entry(1, nothing), made.entry(2, nothing)])
        assert await made.found(at(0)) == [0]
        assert await made.found(nothing) == []

    async def test_a_wrong_dimension_is_an_error_before_anything_is_written(self, store):
        made = await new_set(store)
        with pytest.raises(EmbeddingMismatch, match="64"):
            await made.backend.add(made.info, [made.entry(0, at(0)), made.entry(1, [1.0, 0.0])])
        assert (await made.backend.stats(made.info)).vectors == 0

    async def test_it_says_that_it_is_well(self, store):
        await (await new_set(store)).backend.health()


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


class TestPicking:
    async def test_a_store_that_can_finds_the_nearest_of_some_chunks(self, store):
        made = await new_set(store, chunks=1300)
        if not isinstance(made.backend, Picking):
            pytest.skip("is asked for more instead")
        await made.backend.add(made.info, [made.entry(n, at(n / 10)) for n in range(1300)])

        async def among(ids: list[UUID], k: int = 3) -> list[int]:
            hits = await made.backend.search_among(made.info, at(0), ids, k=k)
            return [made.chunks.index(hit.chunk_id) for hit in hits]

        assert await among(made.chunks[300:]) == [300, 301, 302]
        assert await among([made.chunks[1299], made.chunks[7], uuid4()]) == [7, 1299]
        assert await among([]) == await among([uuid4()]) == []
        assert len(await among(made.chunks[300:], k=50)) == 50


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


async def owner(manager: VectorStoreManager) -> int:
    def look() -> int:
        found: int = Workspace.objects.get(id=manager.scope.workspace_id).personal_of_id
        return found

    return await database.run(look)


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
