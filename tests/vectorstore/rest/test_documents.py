"""Documents and passages over REST: found, read in parts, renamed, deleted."""

from uuid import uuid4

from django.contrib.postgres.search import SearchQuery
from django.db import connection

from kernel import database
from tests.vectorstore.rest.conftest import Place
from vectorstore.manager import VectorStoreManager
from vectorstore.models import ChunkLookup, Document, DocumentState


async def test_a_document_is_shown_as_it_is(place: Place) -> None:
    made = await place.ingest(source="warranty.md", metadata={"year": 2026})
    shown = place.get(f"/documents/{made}", "viewer")
    assert set(shown) == {
        *("id", "collection", "title", "source", "content_type", "size", "state", "done", "total", "error_code"),
        *("reason", "chunk_count", "metadata", "indexed_at", "created_at", "updated_at"),
    }
    assert (shown["source"], shown["state"], shown["metadata"]) == ("warranty.md", "ready", {"year": 2026})
    assert shown["collection"] == place.get("/collections/default")["id"]


async def test_the_list_is_filtered_by_state_and_comes_in_pages(place: Place) -> None:
    made = [await place.ingest(f"text {n}", source=f"{n}.md") for n in range(3)]
    failed = Document.objects.filter(id=made[1])
    await database.run(lambda: failed.update(state=DocumentState.FAILED, error_code="encrypted", reason="why"))
    listed = place.get("/collections/default/documents", state="failed")["documents"]
    assert [(row["id"], row["error_code"], row["reason"]) for row in listed] == [(made[1], "encrypted", "why")]
    first = place.get("/collections/default/documents", limit=2)
    second = place.get("/collections/default/documents", limit=2, before=first["next"])
    assert [row["id"] for row in (*first["documents"], *second["documents"])] == made[::-1]
    assert place.ask("owner", "GET", "/collections/default/documents", params={"state": "lost"}).status_code == 422
    counts = place.get("/collections/default")["documents"]
    assert (counts["ready"], counts["failed"]) == (2, 1)


async def test_a_window_of_the_text_is_what_stands_there(place: Place) -> None:
    text = "ä😀 " * 12_000
    made = await place.ingest(text, source="long.md")
    whole = place.get(f"/documents/{made}/text")
    assert (whole["text"], whole["end"], whole["length"]) == (text[:20_000], 20_000, len(text))
    assert place.get(f"/documents/{made}/text", start=100, end=107) == {
        "text": text[100:107],
        "start": 100,
        "end": 107,
        "length": len(text),
    }
    assert place.get(f"/documents/{made}/text", start=len(text) - 3)["text"] == text[-3:]
    assert place.get(f"/documents/{made}/text", start=999_999)["text"] == ""
    for start, end in ((5, 4), (0, 20_001), (-1, 4), (0, 10**30)):
        params = {"start": start, "end": end}
        assert place.ask("owner", "GET", f"/documents/{made}/text", params=params).status_code == 422


async def test_passages_are_where_they_say_and_know_their_neighbours(place: Place) -> None:
    text = "\n\n".join(f"# Part {n}\n\n{'word ' * 130}" for n in range(3))
    made = await place.ingest(text, source="parts.md")
    first = place.get(f"/documents/{made}/chunks", limit=1)
    rest = place.get(f"/documents/{made}/chunks", after=first["next"])
    chunks = [*first["chunks"], *rest["chunks"]]
    assert [chunk["position"] for chunk in chunks] == list(range(len(chunks)))
    assert len(chunks) >= 3
    for chunk in chunks:
        assert place.get(f"/documents/{made}/text", start=chunk["start"], end=chunk["end"])["text"] == chunk["text"]
    shown = place.get(f"/chunks/{chunks[1]['id']}", "viewer")
    assert (shown["previous"], shown["next"]) == (chunks[0]["id"], chunks[2]["id"])
    assert (shown["document_id"], shown["source"]) == (made, "parts.md")
    assert place.get(f"/chunks/{chunks[0]['id']}")["previous"] is None
    assert place.get(f"/chunks/{chunks[-1]['id']}")["next"] is None


async def test_title_and_metadata_are_what_searches_go_by(place: Place) -> None:
    made = await place.ingest(metadata={"year": 2025})
    change = {"title": "Guarantee \x00", "metadata": {"year": 2026, "tags": ["new"]}}
    changed = place.ask("member", "PATCH", f"/documents/{made}", json=change)
    assert changed.status_code == 200, changed.text
    assert (changed.json()["title"], changed.json()["metadata"]) == ("Guarantee \ufffd", change["metadata"])

    def looked_up() -> tuple[int, int, int, int]:
        found = ChunkLookup.objects.filter(document_id=made)
        return (
            found.filter(metadata__contains={"year": 2026}).count(),
            found.filter(metadata__has_key="headings").count(),
            found.filter(terms=SearchQuery("guarantee", config="english")).count(),
            found.count(),
        )

    new, headings, titled, chunks = await database.run(looked_up)
    assert new == headings == titled == chunks > 0
    assert place.ask("viewer", "PATCH", f"/documents/{made}", json=change).status_code == 403


async def test_metadata_is_bounded(place: Place) -> None:
    made = await place.ingest()
    deep: dict[str, object] = {}
    for _ in range(20):
        deep = {"in": deep}
    wrong: list[object] = [{"a": "x" * 20_000}, deep, [], "text"]
    for metadata in wrong:
        response = place.ask("owner", "PATCH", f"/documents/{made}", json={"metadata": metadata})
        assert response.status_code == 422, metadata
    body = b'{"metadata": {"n": NaN}}'
    assert place.ask("owner", "PATCH", f"/documents/{made}", content=body).status_code in (400, 422)


async def test_what_is_deleted_is_gone_at_once(place: Place) -> None:
    made = await place.ingest()
    [chunk, *_] = place.get(f"/documents/{made}/chunks")["chunks"]
    manager = VectorStoreManager(place.workspace)
    assert await manager.search("How long is the warranty?")
    assert place.ask("viewer", "DELETE", f"/documents/{made}").status_code == 403
    assert place.ask("member", "DELETE", f"/documents/{made}").status_code == 204
    assert await manager.search("How long is the warranty?") == []
    for path in (
        f"/documents/{made}",
        f"/documents/{made}/text",
        f"/documents/{made}/chunks",
        f"/chunks/{chunk['id']}",
    ):
        assert place.ask("owner", "GET", path).status_code == 404, path
    assert place.ask("owner", "DELETE", f"/documents/{made}").status_code == 404


async def test_a_foreign_document_and_a_missing_one_look_the_same(place: Place) -> None:
    made = await place.ingest()
    [chunk, *_] = place.get(f"/documents/{made}/chunks")["chunks"]
    for kind, known in (("documents", made), ("chunks", chunk["id"])):
        for params in ({}, {"workspace": place.own("other")}):
            foreign = place.ask("other", "GET", f"/{kind}/{known}", params=params)
            missing = place.ask("other", "GET", f"/{kind}/{uuid4()}", params=params)
            assert (foreign.status_code, foreign.json()) == (404, missing.json())


async def test_what_is_kept_is_never_a_page(place: Place) -> None:
    made = await place.ingest("# <script>alert(1)</script>\n\n<script>alert(1)</script>", source="<b>.md")
    for path in (f"/documents/{made}", f"/documents/{made}/text", f"/documents/{made}/chunks"):
        response = place.ask("owner", "GET", path)
        assert response.headers["content-type"].startswith("application/json")
        assert response.headers["x-content-type-options"] == "nosniff"


async def test_the_list_by_state_uses_its_index(place: Place) -> None:
    made = await place.ingest()

    def plan() -> str:
        ours = Document.objects.get(id=made)
        Document.objects.bulk_create(
            Document(
                workspace_id=ours.workspace_id,
                collection_id=ours.collection_id,
                title="t",
                source=f"{n}.md",
                state=DocumentState.FAILED if n % 100 == 0 else DocumentState.READY,
            )
            for n in range(3000)
        )
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE vectorstore_document")
        rows = Document.objects.filter(collection_id=ours.collection_id, state=DocumentState.FAILED)
        return rows.order_by("-id")[:31].explain()

    assert "document_by_state" in await database.run(plan)
