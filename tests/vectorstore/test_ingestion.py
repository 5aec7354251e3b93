"""Ingestion is idempotent, replaces whole documents, and writes all of a document or nothing of it."""

import asyncio

import pytest

from kernel import database
from kernel.errors import Invalid, NotFound, TooLarge
from llm.errors import ProviderError
from tests.vectorstore.conftest import CountingEmbedder, document
from vectorstore import rows
from vectorstore.errors import EmbeddingMismatch
from vectorstore.manager import VectorStoreManager
from vectorstore.models import Chunk, Collection, Document

pytestmark = pytest.mark.django_db(transaction=True)
MANUAL = "# X200\n\n## Warranty\n\nIt lasts 24 months.\n\n## Cleaning\n\nRinse the milk hose."


async def chunks() -> list[str]:
    return await database.run(lambda: list(Chunk.objects.order_by("position").values_list("text", flat=True)))


async def documents() -> int:
    return await database.run(Document.objects.count)


async def test_a_document_is_cut_at_its_headings_and_titled_by_the_first(manager, embedder):
    (result,) = await manager.ingest([document(MANUAL)])
    assert (result.outcome, result.chunks) == ("added", 2)
    assert await chunks() == ["# X200\n\n## Warranty\n\nIt lasts 24 months.", "## Cleaning\n\nRinse the milk hose."]
    assert embedder.embedded[1] == "X200 > Cleaning\n\n## Cleaning\n\nRinse the milk hose."


async def test_an_unchanged_document_is_not_embedded_again(manager, embedder):
    await manager.ingest([document(MANUAL)])
    embedder.embedded.clear()
    (result,) = await manager.ingest([document(MANUAL)])
    assert result.outcome == "unchanged"
    assert embedder.embedded == []
    assert len(await chunks()) == 2


async def test_new_metadata_of_an_unchanged_document_is_found_without_embedding_it_again(manager, embedder):
    await manager.ingest([document(MANUAL, metadata={"edition": 1})])
    embedder.embedded.clear()
    (result,) = await manager.ingest([document(MANUAL, metadata={"edition": 2})])
    assert (result.outcome, embedder.embedded) == ("updated", [])
    assert await manager.search("warranty", where={"eq": {"edition": 1}}) == []
    hits = await manager.search("warranty", mode="hybrid", where={"eq": {"edition": 2}})
    assert {hit.metadata["edition"] for hit in hits} == {2}
    assert hits[0].metadata["headings"] == ["X200", "Warranty"]


async def test_a_changed_document_takes_the_place_of_the_old_one(manager):
    (before,) = await manager.ingest([document(MANUAL)])
    (after,) = await manager.ingest([document("# X300\n\nIt lasts 36 months.")])
    assert (after.outcome, after.document_id) == ("updated", before.document_id)
    assert await chunks() == ["# X300\n\nIt lasts 36 months."]
    assert [hit.title for hit in await manager.search("how many months")] == ["X300"]


async def test_the_same_content_from_another_place_is_kept_once(manager, embedder):
    await manager.ingest([document(MANUAL)])
    embedder.embedded.clear()
    (copy,) = await manager.ingest([document(MANUAL, source="copy.md")])
    assert (copy.outcome, copy.reason) == ("skipped", "same content as a.md")
    assert embedder.embedded == []
    assert await documents() == 1


@pytest.mark.parametrize("text", ["", " \n\t"])
async def test_a_document_that_was_emptied_is_gone(manager, text):
    await manager.ingest([document(MANUAL)])
    (result,) = await manager.ingest([document(text)])
    assert (result.outcome, result.reason) == ("skipped", "it has no text")
    assert await documents() == 0
    assert await chunks() == []


async def test_a_provider_that_fails_leaves_the_old_passages(manager, embedder, monkeypatch):
    await manager.ingest([document(MANUAL)])
    before = await chunks()

    class Failing:
        def embed_documents(self, texts):
            raise ConnectionError("no route to host")

    async def failing():
        return Failing()

    monkeypatch.setattr(embedder, "_backend", failing)
    with pytest.raises(ProviderError) as caught:
        await manager.ingest([document("changed")])
    assert "no route" not in caught.value.message
    assert await chunks() == before


async def test_a_write_that_fails_half_way_leaves_the_old_passages(manager, embedder, monkeypatch):
    await manager.ingest([document(MANUAL)])
    before = await chunks()
    good = await embedder.documents(["x"])

    async def broken(texts):
        return [*good * (len(texts) - 1), [float("nan")] * 64]

    monkeypatch.setattr(embedder, "documents", broken)
    with pytest.raises(Exception, match="NaN"):
        await manager.ingest([document("# One\n\none\n\n# Two\n\ntwo")])
    assert await chunks() == before


async def test_two_workers_on_one_document_write_it_once(workspace_id):
    workers = [VectorStoreManager(workspace_id, embedder=CountingEmbedder()) for _ in range(4)]
    results = await asyncio.gather(*(worker.ingest([document(MANUAL)]) for worker in workers))
    outcomes = sorted(result.outcome for (result,) in results)
    assert outcomes == ["added", "unchanged", "unchanged", "unchanged"]
    assert len(await chunks()) == 2


async def test_workers_with_different_versions_leave_one_whole_version(workspace_id):
    workers = [VectorStoreManager(workspace_id, embedder=CountingEmbedder()) for _ in range(4)]
    for round_ in range(4):
        versions = [f"version {round_} of {n}" for n in range(len(workers))]
        texts = ["\n\n".join(f"# Part {part}\n\n{version}" for part in range(9)) for version in versions]
        await asyncio.gather(*(worker.ingest([document(text)]) for worker, text in zip(workers, texts, strict=True)))
        kept = await chunks()
        assert len(kept) == 9
        assert len({text.splitlines()[-1] for text in kept}) == 1


@pytest.mark.parametrize("other", [CountingEmbedder(model="others"), CountingEmbedder(dimension=32)])
async def test_another_embedding_model_is_refused_before_anything_is_written(manager, workspace_id, other):
    await manager.ingest([document(MANUAL)])
    stranger = VectorStoreManager(workspace_id, embedder=other)
    with pytest.raises(EmbeddingMismatch, match=r"'default' holds vectors of fake:words \(64 dimensions\)"):
        await stranger.ingest([document("new", source="new.md")])
    with pytest.raises(EmbeddingMismatch):
        await stranger.search("warranty")
    assert await documents() == 1
    assert other.embedded == []
    (result,) = await stranger.ingest([document("new", source="new.md")], collection="another")
    assert result.outcome == "added"
    assert [hit.text for hit in await stranger.search("new", collection="another")] == ["new"]
    assert [hit.source for hit in await manager.search("warranty", k=1)] == ["a.md"]


async def test_what_postgresql_cannot_hold_is_replaced(manager):
    await manager.ingest([document("zero \x00 and \ud800 half", source="odd\x00.md", title="t\x00itle")])
    (hit,) = await manager.search("zero half")
    assert hit.text == "zero \ufffd and \ufffd half"
    assert (hit.source, hit.title) == ("odd\ufffd.md", "t\ufffditle")


async def test_too_large_a_document_is_named(manager, settings):
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"VECTOR_STORE": {"MAX_DOCUMENT_BYTES": 10}}
    with pytest.raises(TooLarge, match=r"big\.md has more than 10 bytes"):
        await manager.ingest([document("é" * 6, source="big.md")])


@pytest.mark.parametrize("source", ["", "s" * 1001])
async def test_a_source_has_a_length(manager, source):
    with pytest.raises(Invalid, match="source"):
        await manager.ingest([document("text", source=source)])


async def test_a_deleted_document_leaves_nothing(manager):
    (result,) = await manager.ingest([document(MANUAL)])
    assert await manager.delete(result.document_id)
    assert not await manager.delete(result.document_id)
    assert await chunks() == []
    assert await manager.search("warranty") == []
    (again,) = await manager.ingest([document(MANUAL)])
    assert again.outcome == "added"


async def test_a_long_document_is_written_in_batches(manager):
    text = "\n\n".join(f"# Part {n}\n\nIt is about number {n}." for n in range(450))
    (result,) = await manager.ingest([document(text)])
    assert result.chunks == 450
    assert await database.run(Collection.objects.count) == 1


async def test_a_collection_that_goes_while_it_is_looked_at_is_not_found(manager):
    await manager.ingest([document(MANUAL)], collection="brief")

    def look() -> None:
        row = Collection.objects.get(name="brief")
        row_of_another = Collection.objects.create(workspace_id=row.workspace_id, name="other")
        assert [each.name for each in rows.infos([row, row_of_another])] == ["brief"]
        Collection.objects.filter(id=row.id).delete()
        with pytest.raises(NotFound):
            rows.info(row)

    await database.run(look)
