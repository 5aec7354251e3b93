"""Jobs of documents as rows: who works on one, and what became of it. Units of database work.

Lock order: the document's row, then its job. A claim is a lease by the database's clock with a number that grows, the
fence: whoever was given a lower one writes nothing any more.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import PurePath
from typing import Any, Literal
from uuid import UUID

from django.db import connection
from django.db.models import F, Q
from django.db.models.functions import Now

from kernel.conf import config
from kernel.errors import ChainError, Conflict, NotFound
from vectorstore import rows, web_addresses
from vectorstore.errors import WorkerDied
from vectorstore.models import Collection, Document, DocumentState, IngestJob
from vectorstore.scope import Scope
from vectorstore.values import CollectionInfo, Draft, Ingested

logger = logging.getLogger(__name__)

#: Seconds before another try, doubled with each.
_FIRST_WAIT = 2.0
_LONGEST_WAIT = 300.0
#: A job that nobody took is told again after so long.
_TOLD_AGAIN = timedelta(seconds=60)
_SWEPT = 100
#: Jobs of the same bytes that an upload is compared with: there is one for each way to read them.
_COMPARED = 20


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What became of an upload. `job_id` None: there is nothing to do. `updated`: only its title or metadata is new."""

    document_id: UUID
    outcome: Literal["queued", "unchanged", "updated", "in_progress"]
    job_id: UUID | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A job that is ours until its lease runs out."""

    job_id: UUID
    fence: int
    attempts: int
    workspace_id: UUID
    document_id: UUID
    source: str
    into: CollectionInfo
    content: bytes | None
    url: str
    name: str
    content_type: str
    upload_hash: str
    title: str
    metadata: dict[str, Any]


class ClaimLost(Exception):
    """Another worker has the job, or it is over: this one may not write."""


def submit(
    scope: Scope,
    into: CollectionInfo,
    *,
    source: str,
    content: bytes | None = None,
    url: str = "",
    name: str = "",
    content_type: str = "",
    title: str = "",
    metadata: Mapping[str, Any] | None = None,
    requested_by: int | None = None,
    told: bool = False,
) -> Submitted:
    """Take a document in: its row and its job. The same bytes again are no second job, but a title or metadata that
    come with them are taken on; under another name they are no second document, whether they are found or still wait.

    A job that is open for other bytes gets these, and who works on the others writes nothing. `told`: the caller tells
    a broker after the commit, so that no sweep needs to do it soon.
    """
    upload_hash = sha256(content).hexdigest() if content is not None else ""
    # A name that is only its source's takes no place of a title that somebody gave it.
    new_title = "" if title == source[:500] else title[:500]
    known = Document.objects.filter(workspace_id=scope.workspace_id, collection_id=into.id)
    if upload_hash:
        _one_after_the_other(into.id, upload_hash)
        twin = _twin(known, source, upload_hash, name=name, content_type=content_type)
        if twin is not None and not known.filter(source=source).exists():
            return Submitted(document_id=twin.id, outcome="unchanged", reason=f"same content as {twin.source}")
    document, _ = known.select_for_update().get_or_create(
        workspace_id=scope.workspace_id,
        collection_id=into.id,
        source=source,
        defaults={
            "title": (title or name or web_addresses.without_query(source))[:500],
            "content_type": content_type[:200],
        },
    )
    job = IngestJob.objects.select_for_update().filter(document=document).first()
    if content is not None and job is not None and job.open and job.upload_hash == upload_hash:
        job.title, job.metadata = new_title or job.title, job.metadata | dict(metadata or {})
        job.save(update_fields=["title", "metadata", "updated_at"])
        return Submitted(document_id=document.id, outcome="in_progress", job_id=job.id)
    as_before = document.upload_hash == upload_hash and not _read_otherwise(document.content_type, content_type)
    if content is not None and as_before and document.chunk_count:
        _settled(document, job)
        changed = _take_on(document, into.language, title=new_title, metadata=document.metadata | dict(metadata or {}))
        return Submitted(document_id=document.id, outcome="updated" if changed else "unchanged")
    job = job or IngestJob(workspace_id=scope.workspace_id, document=document)
    job.content, job.url, job.upload_hash = content, url, upload_hash
    job.name, job.content_type = name[:1000], content_type[:200]
    job.title, job.metadata = title[:500], dict(metadata or {})
    job.requested_by_id = requested_by
    _open(job, told=told)
    _show(document.id, state=DocumentState.QUEUED)
    return Submitted(document_id=document.id, outcome="queued", job_id=job.id)


def _one_after_the_other(collection_id: UUID, upload_hash: str) -> None:
    """Let who takes in these bytes under another name at this moment commit first: a row's lock holds for one name."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{collection_id} {upload_hash}"])


def _twin(known: Any, source: str, upload_hash: str, *, name: str, content_type: str) -> Document | None:
    """What has these bytes under another name, or waits to be read, and keeps them: not one that is about to be given
    others.

    Of what waits, only what is read in the same way: these bytes may be indexed where that one fails.
    """
    others = known.exclude(source=source).defer("text")
    # Asked for first: one that is finished in between is found below.
    waiting = others.filter(job__open=True, job__upload_hash=upload_hash, job__content_type=content_type[:200])
    for each in waiting.select_related("job").defer("job__content")[:_COMPARED]:
        if _suffix(each.job.name or each.source) == _suffix(name or source):
            queued: Document = each
            return queued
    found: Document | None = others.filter(upload_hash=upload_hash).exclude(job__open=True).first()
    return found


def _suffix(name: str) -> str:
    return PurePath(name).suffix.lower()


def _read_otherwise(before: str, now: str) -> bool:
    """Whether the same bytes were declared to be plain text, and now Markdown, or the other way round."""
    return {each.partition(";")[0].strip().lower() for each in (before, now)} == {"text/plain", "text/markdown"}


def _take_on(document: Document, language: str, *, title: str, metadata: dict[str, Any]) -> bool:
    """Set what is new of these; whether anything is. An empty title leaves the one that it has."""
    wanted = {"title": title or document.title, "metadata": metadata}
    values = {name: value for name, value in wanted.items() if getattr(document, name) != value}
    if values:
        rows.change(document, language, values)
    return bool(values)


def _settled(document: Document, job: IngestJob | None) -> None:
    """What was uploaded is what is found: a job for something else is pointless."""
    if job is not None:
        job.delete()
    if document.state != DocumentState.READY:
        _show(document.id, state=DocumentState.READY, done=document.chunk_count, total=document.chunk_count)


def retry(scope: Scope, document_id: UUID) -> Submitted:
    """Try a failed document again. Raises NotFound for one that has not failed, and Conflict for one that has nothing
    yet, and whose bytes were taken in under another name since.
    """
    seen = scope.documents.filter(id=document_id).values_list("collection_id", "job__upload_hash").first()
    if seen is None:
        raise _none_failed()
    collection_id, upload_hash = seen
    if upload_hash:
        # Before the rows: an upload takes its locks in this order.
        _one_after_the_other(collection_id, upload_hash)
    document = scope.documents.select_for_update(of=("self",)).filter(id=document_id).first()
    failed = IngestJob.objects.select_for_update().filter(document=document, open=False, upload_hash=upload_hash)
    job = failed.first() if document else None
    if document is None or job is None:
        raise _none_failed()
    _check_no_twin(document, job)
    _open(job, told=True)
    _show(document_id, state=DocumentState.QUEUED)
    return Submitted(document_id=document_id, outcome="queued", job_id=job.id)


def _none_failed() -> NotFound:
    return NotFound("There is no document of this id that failed.")


def _check_no_twin(document: Document, job: IngestJob) -> None:
    if document.chunk_count or not job.upload_hash:
        return
    known = Document.objects.filter(workspace_id=document.workspace_id, collection_id=document.collection_id)
    twin = _twin(known, document.source, job.upload_hash, name=job.name, content_type=job.content_type)
    if twin is not None:
        raise Conflict(f"The same content is there as {twin.source}: delete this document, or give it another content.")


def _open(job: IngestJob, *, told: bool) -> None:
    job.fence, job.attempts, job.open, job.owner = job.fence + 1, 0, True, ""
    job.lease_expires_at, job.sent_at = Now(), Now() if told else None  # the database's clock
    job.save()


def claim(job_id: UUID, owner: str) -> Claim | None:
    """Take a job that is free; None if there is none of that id, or somebody has it.

    One whose workers all died is not tried again: it may be what they died of.
    """
    document_id = IngestJob.objects.filter(id=job_id).values_list("document_id", flat=True).first()
    # Waited for, not skipped: a row that is locked for a moment is not somebody's work.
    document = Document.objects.defer("text").select_for_update().filter(id=document_id).first()
    if document is None:
        return None
    free = IngestJob.objects.filter(id=job_id, open=True, lease_expires_at__lte=Now())
    job = free.select_for_update().first()
    if job is None:
        return None
    if job.attempts >= config().vector_store.ingest_attempts:
        _give_up(job)
        return None
    job.fence, job.attempts, job.owner = job.fence + 1, job.attempts + 1, owner
    job.lease_expires_at = Now() + _lease()  # the database's clock
    job.save(update_fields=["fence", "attempts", "owner", "lease_expires_at", "updated_at"])
    _show(document.id, state=DocumentState.PARSING)
    return Claim(
        job_id=job.id,
        fence=job.fence,
        attempts=job.attempts,
        workspace_id=document.workspace_id,
        document_id=document.id,
        source=document.source,
        into=rows.info(Collection.objects.get(id=document.collection_id)),
        content=None if job.content is None else bytes(job.content),
        url=job.url,
        name=job.name or document.source,
        content_type=job.content_type,
        upload_hash=job.upload_hash,
        title=job.title,
        metadata=job.metadata,
    )


def renew(ours: Claim) -> None:
    """Keep the claim for another lease. Raises ClaimLost."""
    if not _held(ours).update(lease_expires_at=Now() + _lease()):
        raise ClaimLost


def show(ours: Claim, *, done: int, total: int) -> None:
    """Tell how far the embedding has come; keeps the claim. Raises ClaimLost."""
    renew(ours)
    _show(ours.document_id, state=DocumentState.EMBEDDING, done=done, total=total)


def finish(scope: Scope, ours: Claim, draft: Draft) -> Ingested:
    """Write the document and end its job. Raises ClaimLost, and rows.StaleSets."""
    row = _locked(ours)
    made = rows.write(ours.into, row, draft)
    job = IngestJob.objects.filter(id=ours.job_id)
    title, metadata = job.values_list("title", "metadata").get()
    if (title, metadata) != (ours.title, ours.metadata):
        # Somebody has named it otherwise since the claim.
        written = Document.objects.defer("text").get(id=row.id)
        read = {name: value for name, value in written.metadata.items() if name not in ours.metadata}
        _take_on(written, ours.into.language, title=title, metadata=read | metadata)
    job.delete()
    return made


def fail(ours: Claim, error: ChainError, *, again: bool) -> bool:
    """Write that it failed: for good, or until another try; whether it is tried `again`. Raises ClaimLost."""
    _locked(ours)
    again = again and ours.attempts < config().vector_store.ingest_attempts
    if again:
        wait = timedelta(seconds=min(_FIRST_WAIT * 2 ** (ours.attempts - 1), _LONGEST_WAIT))
        _held(ours).update(lease_expires_at=Now() + wait, owner="", sent_at=None)
        _show(ours.document_id, state=DocumentState.QUEUED, reason=error.message)
    else:
        _close(_held(ours), ours.document_id, error)
    return again


def give_back(ours: Claim, *, stuck_counts: bool) -> None:
    """End the claim before its time: the job is free at once. Raises ClaimLost.

    The try doesn't count, unless it got nowhere and `stuck_counts`. The caller tells a broker after the commit.
    """
    stuck = _locked(ours).state != DocumentState.EMBEDDING
    spent = 1 if stuck and stuck_counts else 0
    _held(ours).update(lease_expires_at=Now(), owner="", attempts=F("attempts") - 1 + spent, sent_at=Now())
    _show(ours.document_id, state=DocumentState.QUEUED)


def _give_up(job: IngestJob) -> None:
    why = "their workers died or ran out of time"
    error = WorkerDied(f"{job.attempts} tries came to no end: {why}; split the document, or try again.")
    _close(IngestJob.objects.filter(id=job.id), job.document_id, error)
    logger.error("action=ingest_given_up job=%s attempts=%s", job.id, job.attempts)


def _close(job: Any, document_id: UUID, error: ChainError) -> None:
    job.update(open=False, owner="")
    _show(document_id, state=DocumentState.FAILED, error_code=error.code, reason=error.message)


def overdue(*, most: int = _SWEPT) -> list[UUID]:
    """Open jobs that nobody works on and no broker was told of lately; from now on one was."""
    told_long_ago = Q(sent_at=None) | Q(sent_at__lt=Now() - _TOLD_AGAIN) | Q(sent_at__lt=F("lease_expires_at"))
    waiting = IngestJob.objects.filter(told_long_ago, open=True, lease_expires_at__lte=Now())
    found = list(waiting.order_by("lease_expires_at").values_list("id", flat=True)[: max(0, min(most, _SWEPT))])
    IngestJob.objects.filter(id__in=found).update(sent_at=Now())
    return found


def untold(job_id: UUID) -> None:
    """No broker could be told of this job: the next sweep does it."""
    IngestJob.objects.filter(id=job_id).update(sent_at=None)


def _lease() -> timedelta:
    return timedelta(seconds=config().vector_store.ingest_lease)


def _held(ours: Claim) -> Any:
    return IngestJob.objects.filter(id=ours.job_id, fence=ours.fence, open=True)


def _locked(ours: Claim) -> Document:
    row: Document | None = Document.objects.defer("text").select_for_update().filter(id=ours.document_id).first()
    if row is None or not _held(ours).select_for_update().exists():
        raise ClaimLost
    return row


def _show(
    document_id: UUID, *, state: DocumentState, done: int = 0, total: int = 0, error_code: str = "", reason: str = ""
) -> None:
    Document.objects.filter(id=document_id).update(
        state=state, done=done, total=total, error_code=error_code, reason=reason[:500], updated_at=Now()
    )
