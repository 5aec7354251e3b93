"""What each request costs in queries, whatever it lists: the same for a few rows and for many."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import AsyncClient

from kernel import database
from tests.support.queries import counted
from tests.vectorstore.rest.conftest import Place
from vectorstore import watching
from vectorstore.manager import VectorStoreManager
from vectorstore.models import (
    Chunk,
    ChunkLookup,
    Collection,
    CollectionMember,
    Document,
    IngestJob,
    StaleMetadata,
    VectorSet,
)

FEW, MANY = 3, 40


async def cost(place: Place, method: str, path: str, *, who: str = "member", **more: Any) -> list[str]:
    client: Any = AsyncClient()
    headers = {"Authorization": f"Bearer {place.people[who].token}"} | more.pop("headers", {})
    with counted() as seen:
        url = f"/api/v1{path}{'&' if '?' in path else '?'}workspace={place.workspace}"
        response = await getattr(client, method)(url, headers=headers, **more)
    assert response.status_code in (200, 202, 304), response.content
    return seen


async def grow(place: Place, number: int) -> None:
    """The default collection with so many documents and passages in one of them, and so many collections beside it."""

    def fill() -> None:
        collection = Collection.objects.get(workspace_id=place.workspace, name="default")
        of = {"workspace_id": place.workspace, "collection": collection}
        Document.objects.bulk_create(Document(**of, title="t", source=f"{number}-{n}.md") for n in range(number))
        first = Document.objects.get(collection=collection, source="a.md")
        start = first.chunks.count()
        chunks = Chunk.objects.bulk_create(
            Chunk(**of, document=first, position=start + n, text="the warranty", start=0, end=12) for n in range(number)
        )
        for each in chunks:
            ChunkLookup.objects.create(chunk=each, document=first, **of, terms="warranti:1")
        others = Collection.objects.bulk_create(
            Collection(workspace_id=place.workspace, name=f"{number}-{n}") for n in range(number)
        )
        VectorSet.objects.bulk_create(
            VectorSet(workspace_id=place.workspace, collection=each, embedding_model="m", dimension=3)
            for each in others
        )

    await database.run(fill)


#: Who calls (1), their workspace (1), and what is asked for.
COSTS: dict[str, tuple[str, str, int]] = {
    "collections": ("get", "/collections?limit=100", 3),
    "a collection": ("get", "/collections/default", 4),
    "its figures": ("get", "/collections/default/stats", 6),
    "documents": ("get", "/collections/default/documents?limit=100", 4),
    "documents in a state": ("get", "/collections/default/documents?limit=100&state=queued", 4),
    "documents on their way": ("get", "/collections/default/documents/events", 3),
    "a document": ("get", "/documents/{document}", 3),
    "a document on its way": ("get", "/documents/{document}/events", 3),
    "a text": ("get", "/documents/{document}/text", 3),
    "passages": ("get", "/documents/{document}/chunks?limit=100", 4),
    "a passage": ("get", "/chunks/{chunk}", 4),
    "a re-embedding": ("get", "/collections/default/reembed", 4),
}


@pytest.fixture
async def ids(place: Place) -> dict[str, str]:
    made = await place.ingest(source="a.md")

    def look() -> str:
        return str(Chunk.objects.filter(document_id=made).first().pk)  # type: ignore[union-attr]

    return {"document": made, "chunk": await database.run(look)}


async def test_reading_costs_the_same_for_few_rows_and_for_many(place: Place, ids: dict[str, str]) -> None:
    for number in (FEW, MANY):
        await grow(place, number)
        for name, (method, path, expected) in COSTS.items():
            seen = await cost(place, method, path.format_map(ids))
            assert len(seen) == expected, (name, number, seen)


async def test_a_list_that_has_not_changed_costs_no_more(place: Place, ids: dict[str, str]) -> None:
    client: Any = AsyncClient()
    headers = {"Authorization": f"Bearer {place.people['member'].token}"}
    path = "/collections/default/documents"
    first = await client.get(f"/api/v1{path}?workspace={place.workspace}", headers=headers)
    seen = await cost(place, "get", path, headers={"If-None-Match": first["ETag"]})
    assert len(seen) == COSTS["documents"][2]
    assert '"metadata"' not in seen[-1]


async def test_a_look_for_all_who_watch_costs_the_same_for_few_and_for_many(place: Place, ids: dict[str, str]) -> None:
    def known() -> tuple[set[UUID], set[UUID]]:
        rows = Document.objects.filter(workspace_id=place.workspace)
        collections = Collection.objects.filter(workspace_id=place.workspace)
        return set(rows.values_list("id", flat=True)), set(collections.values_list("id", flat=True))

    for number in (FEW, MANY):
        await grow(place, number)
        documents, collections = await database.run(known)
        # Those of the collections are found with them: it is others that are asked for.
        asked: list[tuple[set[UUID], set[UUID], int]] = [
            (documents, set(), 1),
            (documents, collections, 1),
            ({uuid4() for _ in range(number)}, collections, 2),
        ]
        for those, within, queries in asked:
            with counted() as seen:
                looked = await database.run(watching._looked, those, within)
            assert len(seen) == queries, seen
            assert (set(looked.documents), set(looked.collections)) == (those, within)


#: One statement that finds and reads the hits; a process's first search looks the collection up with its sets.
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mode": "vector"}, 3),
        ({"mode": "text"}, 3),
        ({"mode": "hybrid"}, 3),
        ({"mode": "hybrid", "where": {"eq": {"document.source": "a.md"}}}, 3),
        ({"mode": "vector", "neighbours": 2}, 4),
        ({"mode": "vector", "mmr": 0.5}, 4),
    ],
    ids=str,
)
async def test_a_search_costs_the_same_however_much_it_searches(
    place: Place, ids: dict[str, str], options: dict[str, Any], expected: int
) -> None:
    body = {"query": "How long is the warranty?", "k": 10, "workspace": str(place.workspace), **options}
    for number, looked_up in ((FEW, 1), (MANY, 0)):
        await grow(place, number)
        seen = await cost(place, "post", "/search", data=body, content_type="application/json")
        assert len(seen) == expected + looked_up, (options, number, seen)


async def test_the_figures_of_all_collections_cost_the_same_for_few_and_for_many(
    place: Place, ids: dict[str, str]
) -> None:
    manager = VectorStoreManager(place.workspace)
    for number in (FEW, MANY):
        await grow(place, number)
        with counted() as seen:
            found = await manager.stats()
        assert len(found) > number
        # The collections, their sets, their documents, their vectors.
        assert len(seen) == 4, seen


async def test_an_upload_costs_the_same_however_much_is_there(place: Place, ids: dict[str, str]) -> None:
    found = []
    for number in (FEW, MANY):
        await grow(place, number)
        file = SimpleUploadedFile(f"new-{number}.md", f"text {number}".encode())
        found.append(await cost(place, "post", "/collections/default/documents", data={"files": [file]}))
    few, many = map(len, found)
    assert few == many == 16, found[0]


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        (Collection, ["workspace_id", "name"]),
        (CollectionMember, ["collection_id", "user_id"]),
        (CollectionMember, ["user_id"]),
        (Document, ["collection_id", "id"]),
        (Document, ["collection_id", "state", "id"]),
        (Document, ["collection_id", "source"]),
        (Document, ["collection_id", "content_hash"]),
        (Document, ["collection_id", "upload_hash"]),
        (Chunk, ["document_id", "position"]),
        (ChunkLookup, ["metadata"]),
        (ChunkLookup, ["collection_id", "terms"]),
        (ChunkLookup, ["document_id"]),
        (IngestJob, ["upload_hash"]),
        (StaleMetadata, ["vector_set_id", "document_id"]),
        (StaleMetadata, ["lease_expires_at"]),
    ],
    ids=str,
)
def test_what_is_looked_for_has_an_index(live_database: None, model: Any, columns: list[str]) -> None:
    with connection.cursor() as cursor:
        known = connection.introspection.get_constraints(cursor, model._meta.db_table)
    indexed = [each["columns"] for each in known.values() if each["index"] or each["unique"]]
    assert any(each[: len(columns)] == columns for each in indexed), indexed
