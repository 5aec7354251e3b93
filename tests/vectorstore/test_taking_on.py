"""The same text with another title or other metadata: taken on without reading it again, whenever it comes."""

from typing import Any

import pytest

from kernel import database
from tests.vectorstore.conftest import document as text
from tests.vectorstore.conftest import new_workspace
from vectorstore import claims, ingestion
from vectorstore.manager import VectorStoreManager
from vectorstore.models import CachedEmbedding, Document, IngestJob

pytestmark = pytest.mark.django_db(transaction=True)
CONTENT = b"# X200\n\nThe warranty lasts 24 months."


@pytest.fixture
async def manager() -> VectorStoreManager:
    return VectorStoreManager(await new_workspace())


async def submit(manager: VectorStoreManager, **more: Any) -> Any:
    return await manager.submit(source="manual.md", name="manual.md", content=CONTENT, tell=False, **more)


async def row(of: Any) -> Document:
    return await database.run(Document.objects.get, id=of.document_id)


async def indexed(manager: VectorStoreManager, **more: Any) -> Any:
    made = await submit(manager, **more)
    await ingestion.work(made.job_id)
    return made


async def test_an_upload_of_the_same_bytes_takes_on_what_comes_with_it(manager):
    made = await indexed(manager, metadata={"year": 2025})
    embedded = await database.run(CachedEmbedding.objects.count)
    again = await submit(manager, title="Manual", metadata={"lang": "en"})
    assert (again.outcome, again.job_id, again.document_id) == ("updated", None, made.document_id)
    now = await row(made)
    assert (now.title, now.metadata) == ("Manual", {"year": 2025, "lang": "en", "kind": "markdown"})
    assert await database.run(CachedEmbedding.objects.count) == embedded
    [hit] = await manager.search("manual", mode="text", where={"eq": {"lang": "en"}})
    assert hit.title == "Manual"
    assert (await submit(manager, title="Manual", metadata={"lang": "en"})).outcome == "unchanged"


async def test_an_upload_that_names_nothing_leaves_the_title_that_somebody_gave(manager):
    made = await indexed(manager, title="Manual")
    for title in ("", "manual.md"):
        assert (await submit(manager, title=title)).outcome == "unchanged"
    assert (await row(made)).title == "Manual"


async def test_what_comes_while_it_waits_or_is_worked_on_is_not_lost(manager):
    made = await submit(manager, metadata={"year": 2025, "lang": "en"})
    assert (await submit(manager, title="Manual")).outcome == "in_progress"
    claim = await database.run(ingestion._atomic, claims.claim, made.job_id, "worker")
    assert claim.title == "Manual"
    # From here on the worker has read the row.
    assert (await submit(manager, title="Handbook", metadata={"lang": "de"})).outcome == "in_progress"
    await ingestion._kept(claim)
    now = await row(made)
    assert (now.title, now.metadata) == ("Handbook", {"year": 2025, "lang": "de", "kind": "markdown"})
    assert len(await manager.search("warranty", where={"eq": {"lang": "de"}})) == 1
    assert await manager.search("warranty", where={"eq": {"lang": "en"}}) == []
    assert (await manager.search("handbook", mode="text"))[0].document_id == made.document_id
    assert not await database.run(IngestJob.objects.exists)


async def test_a_text_that_is_ingested_again_takes_on_its_title(manager):
    [made] = await manager.ingest([text("pears", title="Pears", metadata={"year": 1})])
    [again] = await manager.ingest([text("pears", title="Birnen", metadata={"year": 1})])
    assert (again.outcome, again.document_id) == ("updated", made.document_id)
    [same] = await manager.ingest([text("pears", metadata={"year": 1})])
    assert (same.outcome, (await row(made)).title) == ("unchanged", "Birnen")
