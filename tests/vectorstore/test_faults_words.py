"""Sweeps of documents' jobs at a real broker: what it is told of again, and how much at most."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from celery import Celery
from django.db.models.functions import Now

from django_chain.celery import celery_url
from django_chain.embedded.valkey import Valkey
from kernel import database, jobs
from tests.vectorstore.conftest import new_workspace
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
