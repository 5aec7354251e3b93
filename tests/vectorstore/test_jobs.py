"""Jobs of documents: taken once, done once, whoever dies on the way."""

import asyncio
import threading
import time

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from kernel import database
from kernel.errors import Conflict, Invalid, NotFound
from llm.errors import ProviderUnavailable
from llm.registry import embedding_providers
from tests.vectorstore.conftest import new_workspace
from vectorstore import claims, ingestion
from vectorstore.claims import ClaimLost
from vectorstore.manager import VectorStoreManager
from vectorstore.models import CachedEmbedding, Chunk, Collection, Document, IngestJob
from vectorstore.scope import Scope
from vectorstore.values import SourceDocument

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = b"# X200\n\n## Warranty\n\nIt lasts 24 months.\n\n## Cleaning\n\nRinse the milk hose."


@pytest.fixture
async def manager():
    return VectorStoreManager(await new_workspace())


async def submit(manager, content=TEXT, source="manual.md", **more):
    return await manager.submit(source=source, name=source, content=content, tell=False, **more)


async def document(of) -> Document:
    return await database.run(Document.objects.get, id=of.document_id)


async def chunks() -> int:
    return await database.run(Chunk.objects.count)


async def expire(job_id) -> None:
    await database.run(lambda: IngestJob.objects.filter(id=job_id).update(lease_expires_at=Now()))


async def test_a_document_is_queued_then_ready_and_found(manager):
    made = await submit(manager, metadata={"edition": 3})
    assert (made.outcome, (await document(made)).state) == ("queued", "queued")
    assert await manager.search("warranty") == []
    worked = await ingestion.work(made.job_id)
    row = await document(made)
    assert (worked.outcome, worked.chunks) == ("added", 2)
    assert (row.state, row.done, row.total, row.chunk_count, row.title) == ("ready", 2, 2, 2, "X200")
    assert row.metadata == {"edition": 3, "kind": "markdown"}
    assert not await database.run(IngestJob.objects.filter(document_id=row.id).exists)
    assert "24 months" in (await manager.search("how long is the warranty"))[0].text


async def test_the_same_bytes_again_are_no_second_work(manager):
    made = await submit(manager)
    again = await submit(manager)
    assert (again.outcome, again.job_id) == ("in_progress", made.job_id)
    await ingestion.work(made.job_id)
    assert (await submit(manager)).outcome == "unchanged"
    copy = await submit(manager, source="copy.md")
    assert (copy.outcome, copy.document_id, copy.reason) == ("unchanged", made.document_id, "same content as manual.md")
    assert await chunks() == 2


async def test_the_same_bytes_under_another_name_are_no_second_document_while_they_wait(manager):
    made = await submit(manager)
    for state in ("queued", "parsing", "ready"):
        copy = await submit(manager, source="copy.md")
        assert (copy.outcome, copy.document_id, copy.job_id) == ("unchanged", made.document_id, None)
        assert (copy.reason, (await document(made)).state) == ("same content as manual.md", state)
        if state == "queued":
            claim = await database.run(ingestion._atomic, claims.claim, made.job_id, "worker")
        elif state == "parsing":
            await ingestion._kept(claim)
    assert [hit.source for hit in await manager.search("warranty", k=10)] == ["manual.md"] * 2
    assert (await submit(manager, source="copy.md", collection="other")).outcome == "queued"
    other = VectorStoreManager(await new_workspace())
    assert (await submit(other, source="copy.md")).outcome == "queued"


async def test_two_at_once_with_the_same_bytes_are_one_document(manager):
    into = await manager.collection()
    taken_in, go = threading.Event(), threading.Event()

    def first() -> claims.Submitted:
        with transaction.atomic():
            made = claims.submit(manager.scope, into, source="manual.md", name="manual.md", content=TEXT)
            taken_in.set()
            go.wait(10)
            return made

    uploading = asyncio.create_task(database.run(first))
    await asyncio.to_thread(taken_in.wait, 10)
    copying = asyncio.create_task(submit(manager, source="copy.md"))
    await asyncio.to_thread(_waits_for_a_lock)
    # Other bytes wait for nobody.
    assert (await submit(manager, b"# X300", source="other.md")).outcome == "queued"
    go.set()
    made, copy = await uploading, await copying
    assert (copy.outcome, copy.document_id) == ("unchanged", made.document_id)


async def test_bytes_whose_first_name_fails_are_taken_in_under_the_second(manager):
    broken = b'{"a": '
    first = await submit(manager, broken, source="a.json")
    assert (await submit(manager, broken, source="b.json")).document_id == first.document_id
    # Read in another way it may be a text.
    text = await submit(manager, broken, source="b.txt")
    declared = await submit(manager, broken, source="c.json", content_type="text/plain")
    assert len({first.document_id, text.document_id, declared.document_id}) == 3
    assert (await ingestion.work(first.job_id)).outcome == "failed"
    assert (await ingestion.work(text.job_id)).outcome == "added"
    await manager.delete(text.document_id)
    await manager.delete(declared.document_id)
    again = await submit(manager, broken, source="b.json")
    assert (again.outcome, again.document_id == first.document_id) == ("queued", False)


async def test_what_failed_is_not_tried_again_beside_the_same_bytes_under_another_name(manager, monkeypatch):
    async def refused(ours):
        raise Invalid("Not today.")

    first = await submit(manager, source="a.md")
    with monkeypatch.context() as patched:
        patched.setattr(ingestion, "_index", refused)
        assert (await ingestion.work(first.job_id)).outcome == "failed"
    second = await submit(manager, source="b.md")
    for _ in ("it waits", "it is found"):
        with pytest.raises(Conflict, match=r"same content is there as b\.md"):
            await manager.retry(first.document_id)
        assert (await document(first)).state == "failed"
        await ingestion.work(second.job_id)
    await manager.delete(second.document_id)
    again = await manager.retry(first.document_id)
    assert (await submit(manager, source="b.md")).document_id == first.document_id
    assert (await ingestion.work(again.job_id)).outcome == "added"


async def test_a_try_again_and_an_upload_of_the_same_bytes_at_once_are_one_document(manager, monkeypatch):
    async def refused(ours):
        raise Invalid("Not today.")

    made, taken_in, go = await submit(manager, source="a.md"), threading.Event(), threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(ingestion, "_index", refused)
        await ingestion.work(made.job_id)

    def retry() -> claims.Submitted:
        with transaction.atomic():
            tried = claims.retry(manager.scope, made.document_id)
            taken_in.set()
            go.wait(10)
            return tried

    trying = asyncio.create_task(database.run(retry))
    await asyncio.to_thread(taken_in.wait, 10)
    copying = asyncio.create_task(submit(manager, source="b.md"))
    await asyncio.to_thread(_waits_for_a_lock)
    go.set()
    assert (await trying).outcome == "queued"
    copy = await copying
    assert (copy.outcome, copy.document_id) == ("unchanged", made.document_id)


async def test_a_document_with_an_older_text_gets_what_it_was_sent_also_beside_the_same_bytes(manager, monkeypatch):
    async def refused(ours):
        raise Invalid("Not today.")

    made = await submit(manager, b"# X300\n\nIt lasts 36 months.", source="a.md")
    await ingestion.work(made.job_id)
    changed = await submit(manager, source="a.md")
    with monkeypatch.context() as patched:
        patched.setattr(ingestion, "_index", refused)
        await ingestion.work(changed.job_id)
    await ingestion.work((await submit(manager, source="b.md")).job_id)
    assert (await ingestion.work((await manager.retry(made.document_id)).job_id)).outcome == "updated"


async def test_a_name_that_is_about_to_get_other_bytes_keeps_no_copy_out(manager):
    made = await submit(manager)
    assert (await submit(manager, b"# X300\n\nIt lasts 36 months.")).job_id == made.job_id
    copy = await submit(manager, source="copy.md")
    assert (copy.outcome, copy.document_id == made.document_id) == ("queued", False)


async def test_the_same_bytes_with_new_metadata_are_no_work_either(manager):
    await ingestion.work((await submit(manager, metadata={"edition": 1})).job_id)
    assert (await submit(manager, metadata={"edition": 2})).job_id is None
    assert await manager.search("warranty", where={"eq": {"edition": 1}}) == []
    assert (
        await manager.search(
            "warranty",
            where={
                "eq": {"edition": 2},
            },
        )
        != []
    )


async def test_a_job_is_worked_on_by_one(manager):
    made = await submit(manager)
    outcomes = await asyncio.gather(*(ingestion.work(made.job_id) for _ in range(4)))
    assert sorted(each.outcome for each in outcomes) == ["added", "taken", "taken", "taken"]
    assert await chunks() == 2


async def test_a_dead_workers_job_is_taken_over_and_its_late_write_loses(manager):
    made = await submit(manager)
    dead = await database.run(ingestion._atomic, claims.claim, made.job_id, "dead")
    assert (await ingestion.work(made.job_id)).outcome == "taken"
    await expire(made.job_id)
    assert (await ingestion.work(made.job_id)).outcome == "added"
    with pytest.raises(ClaimLost):
        await database.run(ingestion._atomic, claims.fail, dead, ProviderUnavailable(), again=False)
    assert (await document(made)).state == "ready"
    assert await chunks() == 2


async def test_new_bytes_for_an_open_job_win_over_who_works_on_the_old_ones(manager):
    made = await submit(manager)
    old = await database.run(ingestion._atomic, claims.claim, made.job_id, "old")
    newer = await submit(manager, b"# X300\n\nIt lasts 36 months.")
    assert (newer.outcome, newer.job_id) == ("queued", made.job_id)
    with pytest.raises(ClaimLost):
        await ingestion._kept(old)
    await ingestion.work(made.job_id)
    assert [hit.title for hit in await manager.search("months")] == ["X300"]


async def test_the_old_version_is_found_until_the_new_one_is_there(manager):
    await ingestion.work((await submit(manager)).job_id)
    made = await submit(manager, b"# X200\n\nIt lasts 60 months.")
    assert "24 months" in (await manager.search("lasts months"))[0].text
    assert (await ingestion.work(made.job_id)).outcome == "updated"
    assert "60 months" in (await manager.search("lasts months"))[0].text
    assert await chunks() == 1


async def test_a_file_that_cannot_be_read_fails_with_its_reason_and_keeps_the_old_text(manager):
    await ingestion.work((await submit(manager)).job_id)
    made = await submit(manager, b"%PDF-1.7 broken", content_type="application/pdf")
    worked = await ingestion.work(made.job_id)
    row = await document(made)
    assert worked.outcome == row.state == "failed"
    assert row.error_code == worked.code != ""
    assert "manual.md" in row.reason
    assert await chunks() == 2
    # The very bytes that are indexed, again: all is well.
    assert (await submit(manager)).outcome == "unchanged"
    assert (await document(made)).state == "ready"


async def test_a_provider_that_is_away_is_asked_again_and_what_was_embedded_is_kept(manager, settings):
    calls: list[int] = []

    class Failing:
        away = True

        def embed_documents(self, texts):
            calls.append(len(texts))
            if self.away and len(calls) > 1:
                raise ConnectionError("no route to host")
            return [[float(len(text)), 1.0, 2.0, 3.0] for text in texts]

    embedding_providers.add("failing", lambda config: Failing())
    try:
        chain = settings.DJANGO_CHAIN
        settings.DJANGO_CHAIN = chain | {
            "EMBEDDINGS": {"PROVIDER": "failing", "MODEL": "m", "DIMENSION": 4, "BATCH_SIZE": 1000}
        }
        text = "\n\n".join(f"# Section {n}\n\nabout {n}" for n in range(300)).encode()
        made = await submit(manager, text)
        assert (await ingestion.work(made.job_id)).outcome == "waiting"
        row = await document(made)
        assert (row.state, await chunks()) == ("queued", 0)
        assert (await ingestion.work(made.job_id)).outcome == "taken"
        await expire(made.job_id)
        Failing.away = False
        assert (await ingestion.work(made.job_id)).outcome == "added"
        # The first batch was kept: only the second one was asked for again.
        assert calls == [256, 44, 44]
        assert await chunks() == 300
        assert await database.run(CachedEmbedding.objects.count) == 300
    finally:
        embedding_providers.remove("failing")


async def test_after_so_many_tries_it_has_failed_and_can_be_tried_again(manager, settings, monkeypatch):
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"VECTOR_STORE": {"INGEST_ATTEMPTS": 2}}
    made = await submit(manager)

    async def away(ours):
        raise ProviderUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(ingestion, "_index", away)
        assert (await ingestion.work(made.job_id)).outcome == "waiting"
        await expire(made.job_id)
        assert (await ingestion.work(made.job_id)).outcome == "failed"
    assert (await document(made)).error_code == "provider_unavailable"
    stranger = VectorStoreManager(await new_workspace())
    with pytest.raises(NotFound):
        await stranger.retry(made.document_id)
    again = await manager.retry(made.document_id)
    assert (await ingestion.work(again.job_id)).outcome == "added"


async def test_a_document_deleted_meanwhile_stays_deleted(manager):
    made = await submit(manager)
    ours = await database.run(ingestion._atomic, claims.claim, made.job_id, "me")
    assert await manager.delete(made.document_id)
    with pytest.raises(ClaimLost):
        await ingestion._kept(ours)
    assert await database.run(Document.objects.count) == 0
    assert await chunks() == 0


async def test_a_sweep_finds_what_no_broker_knows_of(manager):
    made = await submit(manager)
    assert await database.run(claims.overdue) == [made.job_id]
    assert await database.run(claims.overdue) == []
    await database.run(ingestion._atomic, claims.claim, made.job_id, "dies")
    assert await database.run(claims.overdue) == []
    await expire(made.job_id)
    # Told before the lease that ran out: told again.
    assert await database.run(claims.overdue) == [made.job_id]


async def test_a_row_that_is_locked_for_a_moment_is_no_work_of_somebody_else(manager):
    made = await submit(manager)
    locked, go = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            IngestJob.objects.select_for_update().get(id=made.job_id)
            locked.set()
            go.wait(10)

    holding = asyncio.ensure_future(database.run(hold))
    await asyncio.to_thread(locked.wait, 10)
    working = asyncio.ensure_future(ingestion.work(made.job_id))
    await asyncio.to_thread(_waits_for_a_lock)
    go.set()
    await holding
    assert (await working).outcome == "added"


def _waits_for_a_lock() -> None:
    until = time.monotonic() + 2.5
    try:
        while time.monotonic() < until:
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                if cursor.fetchone()[0]:
                    return
    finally:
        connection.close()


async def test_the_date_of_an_e_mail_is_its_documents(manager):
    mail = b"From: a@example.org\nSubject: S\nDate: Tue, 03 Nov 2026 10:00:00 +0000\n\nThe cord is recalled.\n"
    made = await submit(manager, mail, source="m.eml")
    assert (await ingestion.work(made.job_id)).outcome == "added"
    assert str((await document(made)).dated_at) == "2026-11-03 10:00:00+00:00"


async def test_vectors_are_not_shared_between_workspaces(manager):
    await ingestion.work((await submit(manager)).job_id)
    other = VectorStoreManager(await new_workspace())
    await ingestion.work((await submit(other)).job_id)
    owners = await database.run(lambda: set(CachedEmbedding.objects.values_list("workspace_id", flat=True)))
    assert len(owners) == 2
    seen = await Scope(next(iter(owners))).run(lambda scope: CachedEmbedding.objects.count())
    assert seen == 2


@pytest.mark.parametrize("date", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
async def test_a_date_beyond_all_calendars_spoils_no_list_and_no_search(manager, date):
    made = await submit(manager, metadata={"date": date})
    assert (await ingestion.work(made.job_id)).outcome == "added"
    assert (await document(made)).dated_at is None
    assert (await manager.search("warranty"))[0].metadata["date"] == date


async def test_a_number_too_large_for_a_zone_is_no_date(manager):
    made = await submit(manager, metadata={"date": "Mon, 02 Nov 2026 10:00:00 +99999999999999"})
    assert (await ingestion.work(made.job_id)).outcome == "added"
    assert (await document(made)).dated_at is None


async def test_a_file_that_was_moved_is_taken_in_although_its_old_place_still_holds_it(manager):
    await ingestion.work((await submit(manager, source="old.md")).job_id)
    other = await submit(manager, b"# X300\n\nIt lasts 36 months.", source="old.md")
    moved = await submit(manager, source="new.md")
    assert moved.outcome == "queued"
    await asyncio.gather(ingestion.work(other.job_id), ingestion.work(moved.job_id))
    found = {hit.source: hit.title for hit in await manager.search("how many months")}
    assert found == {"old.md": "X300", "new.md": "X200"}


async def test_an_upload_goes_where_it_was_sent_although_the_collection_is_renamed(manager):
    place = await manager.collection("secret")
    await database.run(Collection.objects.filter(id=place.id).update, name="public")
    made = await submit(manager, collection=place.id)
    assert (await document(made)).collection_id == place.id
    assert [each.name for each in await manager.collections()] == ["public"]


async def test_an_upload_to_a_collection_that_goes_meanwhile_finds_none(manager):
    place = await manager.collection("brief")
    begun, gone = threading.Event(), threading.Event()

    def delete() -> None:
        with transaction.atomic():
            Collection.objects.select_for_update().get(id=place.id)
            begun.set()
            gone.wait(10)
            Collection.objects.filter(id=place.id).delete()

    deleting = asyncio.create_task(database.run(delete))
    await asyncio.to_thread(begun.wait, 10)
    uploading = asyncio.create_task(submit(manager, collection=place.id))
    await asyncio.to_thread(_waits_for_a_lock)
    gone.set()
    with pytest.raises(NotFound):
        await uploading
    await deleting
    assert await database.run(IngestJob.objects.count) == 0


async def test_an_e_mail_with_a_nul_in_its_headers_is_indexed(manager):
    mail = b"From: a\x00b@example.org\nSubject: The cord\x00\nTo: \xff\xfe\n\nThe cord is recalled.\n"
    made = await submit(manager, mail, source="m.eml")
    assert (await ingestion.work(made.job_id)).outcome == "added"
    assert (await manager.search("cord"))[0].metadata["from"] == "a\ufffdb@example.org"


async def test_a_text_that_is_now_called_markdown_is_read_as_such(manager):
    async def add(kind: str):
        return await submit(manager, TEXT, source="note", content_type=kind)

    made = await add("text/plain; charset=utf-8")
    await ingestion.work(made.job_id)
    assert not (await document(made)).markdown
    again = await add("text/markdown")
    assert again.outcome == "queued"
    await ingestion.work(again.job_id)
    assert (await document(again)).markdown
    assert again.document_id == made.document_id
    assert (await add("text/markdown")).outcome == "unchanged"


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("https://example.org/a?X-Amz-Signature=5ec2e7#part", "https://example.org/a"),
        ("HTTPS://example.org?token=70c3a", "HTTPS://example.org"),
        ("what is this?.md", "what is this?.md"),
    ],
)
async def test_a_document_without_a_title_is_called_by_its_source_but_not_by_a_signature(manager, source, title):
    [made] = await manager.ingest([SourceDocument(source=source, text="Some words.", markdown=True)])
    assert (await document(made)).title == title
    [hit] = await manager.search("some words")
    assert (hit.title, hit.source) == (title, source)
