"""Words of documents' jobs at a real broker: what it is told of again, and how much at most."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Celery
from django.db.models.functions import Now

from django_chain.celery import celery_url
from django_chain.embedded.valkey import Valkey
from kernel import database, jobs
from llm.registry import document_parsers, embedding_providers
from tests.support.ingest_stage import manual
from tests.vectorstore.conftest import new_workspace
from vectorstore import ingestion
from vectorstore.manager import VectorStoreManager
from vectorstore.models import Collection, Document, IngestJob
from vectorstore.tasks import sweep_ingest_jobs

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    """Where this process's words go; nobody takes them."""
    with Valkey(tmp_path) as valkey:
        app = Celery("elsewhere", broker=celery_url(valkey.url), set_as_current=False)
        monkeypatch.setattr(jobs, "_find_app", lambda: app)
        monkeypatch.setattr(jobs, "_away_until", 0.0)
        yield valkey


async def waiting(count: int) -> None:
    """So many documents that were uploaded a while ago."""
    workspace_id: UUID = await new_workspace()
    into = await VectorStoreManager(workspace_id).collection()

    def write() -> None:
        collection = Collection.objects.get(id=into.id)
        documents = Document.objects.bulk_create(
            Document(workspace_id=workspace_id, collection=collection, source=f"{n}.md", title="T")
            for n in range(count)
        )
        IngestJob.objects.bulk_create(
            IngestJob(workspace_id=workspace_id, document=each, content=b"text", lease_expires_at=Now())
            for each in documents
        )

    await database.run(write)


def a_minute_later() -> None:
    IngestJob.objects.update(sent_at=Now() - timedelta(seconds=61))


async def test_a_broker_that_nobody_empties_is_told_no_more_than_fits(broker: Valkey) -> None:
    await waiting(150)
    for _ in range(6):
        await database.run(sweep_ingest_jobs)
        await database.run(a_minute_later)
    assert jobs.waiting() == 200
    broker.kill()
    broker.start()
    # Empty: they are told again, a hundred each time.
    await database.run(sweep_ingest_jobs)
    assert jobs.waiting() == 100


async def test_a_broker_that_is_away_is_told_as_soon_as_it_is_back(broker: Valkey) -> None:
    await waiting(3)
    broker.kill()
    await database.run(sweep_ingest_jobs)
    broker.start()
    await database.run(sweep_ingest_jobs)
    assert jobs.waiting() == 3


async def test_a_word_that_the_broker_did_not_take_counts_as_not_told(
    broker: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    await waiting(3)
    # It still answers how much it holds.
    monkeypatch.setattr(jobs, "_away_until", float("inf"))
    await database.run(sweep_ingest_jobs)
    monkeypatch.setattr(jobs, "_away_until", 0.0)
    await database.run(sweep_ingest_jobs)
    assert jobs.waiting() == 3


class Slow:
    """An embedding model that hangs over its second request."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(len(texts))
        if len(self.asked) == 2:
            await asyncio.Event().wait()
        return [[float(len(text)), 1.0] for text in texts]


@pytest.fixture
def slow(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Slow:
    model = Slow()
    monkeypatch.setattr(embedding_providers, "_entries", dict(embedding_providers._entries))
    embedding_providers.add("slow", lambda config: model)
    options = {"PROVIDER": "slow", "MODEL": uuid4().hex, "DIMENSION": 2, "BATCH_SIZE": 256}
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"EMBEDDINGS": options}
    return model


async def attempts() -> int:
    return await database.run(lambda: IngestJob.objects.get().attempts)


async def test_a_document_that_takes_long_is_gone_on_with_in_the_next_task(broker: Valkey, slow: Slow) -> None:
    manager = VectorStoreManager(await new_workspace())
    made = await manager.submit(source="a.md", name="a.md", content=manual(258, "about").encode(), tell=False)
    assert made.job_id is not None
    assert (await ingestion.work(made.job_id, longest=3.0)).outcome == "waiting"
    assert jobs.waiting() == 1
    # It got on: such a try is none of those that fail.
    assert await attempts() == 0
    assert (await ingestion.work(made.job_id)).outcome == "added"
    assert slow.asked == [256, 2, 2]


async def test_a_document_that_gets_nowhere_is_not_tried_for_ever(
    broker: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_parsers, "_entries", dict(document_parsers._entries))
    stuck = threading.Event()
    document_parsers.add(".slow", lambda data, name: stuck.wait(20))
    manager = VectorStoreManager(await new_workspace())
    made = await manager.submit(source="a.slow", name="a.slow", content=b"text", tell=False)
    assert made.job_id is not None
    try:
        assert (await ingestion.work(made.job_id, longest=0.1)).outcome == "waiting"
    finally:
        stuck.set()
    assert await attempts() == 1
