"""Working on a document: fetch, parse, cut, embed, and put it in the place of what was there.

A job is a row (vectorstore.claims). Whoever is told of one, by a broker, a sweep or a command, claims it, and works on
it while its lease is renewed. A worker that dies leaves the row; the next one begins anew and finds most vectors made.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import Any, Literal, NoReturn
from uuid import UUID, uuid4

from django.db import transaction

from kernel import database, jobs
from kernel.conf import config
from kernel.errors import Busy, ChainError, DatabaseUnavailable, Unavailable
from kernel.text import storable, storable_values
from vectorstore import claims, drafting, fetching, indexing
from vectorstore.claims import Claim, ClaimLost
from vectorstore.errors import NoText
from vectorstore.leases import unless
from vectorstore.parsing import documents as parsing
from vectorstore.scope import Scope
from vectorstore.values import Ingested, SourceDocument

logger = logging.getLogger(__name__)

#: Failures that may be over with the next try.
_PASSING = (Unavailable, Busy)
#: Seconds that a job still has in a process that is to end. Service managers wait for ten or more.
_GRACE = 5.0
#: Seconds until a claim is renewed after the database was away.
_SOON = 0.5


@dataclass(frozen=True, kw_only=True)
class Worked:
    """What became of a job. `taken`: somebody else has it, or it is over; `waiting`: it will be tried again."""

    outcome: Literal["added", "updated", "failed", "waiting", "taken"]
    document_id: UUID | None = None
    chunks: int = 0
    code: str = ""
    reason: str = ""


class _OutOfTime(Exception):
    """The job is not done, and this process ends (`ending`) or has worked on it for long enough."""

    def __init__(self, *, ending: bool) -> None:
        self.ending = ending
        super().__init__(ending)


_ending = False
_under_way: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()


def end_soon() -> None:
    """This process is to end: jobs that aren't done in a few seconds are given back.

    May be called in any thread, and by a signal's handler.
    """
    global _ending  # noqa: PLW0603  one end a process
    _ending = True
    for loop, told in tuple(_under_way):
        with suppress(RuntimeError):  # a loop that has just ended has no job any more
            loop.call_soon_threadsafe(told.set)


async def work(job_id: UUID, *, longest: float | None = None) -> Worked:
    """Do a job to its end, if it is free. One that takes longer than `longest` seconds is given back, to go on anew.

    Raises DatabaseUnavailable; the job then waits for its next worker.
    """
    ours = await database.run(_atomic, claims.claim, job_id, f"ingest-{uuid4().hex[:12]}")
    if ours is None:
        return Worked(outcome="taken")
    try:
        made = await _kept(ours, longest)
    except ClaimLost:
        return Worked(outcome="taken", document_id=ours.document_id)
    except _OutOfTime as end:
        return await _given_back(ours, stuck_counts=not end.ending)
    except asyncio.CancelledError:
        # This process ends at once. The next worker needn't wait for our lease.
        with suppress(ChainError):
            await _given_back(ours, stuck_counts=False)
        raise
    except ChainError as error:
        return await _failed(ours, error, again=isinstance(error, _PASSING))
    except Exception as error:  # noqa: BLE001  whatever it was, the job's row says so and people see it
        # A bug of ours or of a library. Not the error's text: it may quote the document.
        logger.error("action=ingest_failed job=%s error=%s", ours.job_id, type(error).__name__)  # noqa: TRY400
        return await _failed(ours, ChainError("The document could not be indexed.", code="internal"), again=True)
    return Worked(
        outcome="updated" if made.outcome == "updated" else "added", document_id=ours.document_id, chunks=made.chunks
    )


async def _given_back(ours: Claim, *, stuck_counts: bool) -> Worked:
    try:
        await database.run(_atomic, claims.give_back, ours, stuck_counts=stuck_counts)
    except ClaimLost:
        return Worked(outcome="taken", document_id=ours.document_id)
    logger.info("action=ingest_given_back job=%s", ours.job_id)
    if not await asyncio.to_thread(jobs.tell, "vectorstore.tasks.ingest_document", ours.job_id):
        await database.run(claims.untold, ours.job_id)
    return Worked(outcome="waiting", document_id=ours.document_id)


async def _failed(ours: Claim, error: ChainError, *, again: bool) -> Worked:
    try:
        waiting = await database.run(_atomic, claims.fail, ours, error, again=again)
    except ClaimLost:
        return Worked(outcome="taken", document_id=ours.document_id)
    return Worked(
        outcome="waiting" if waiting else "failed",
        document_id=ours.document_id,
        code=error.code,
        reason=error.message,
    )


async def _kept(ours: Claim, longest: float | None = None) -> Ingested:
    """Index, while the claim is kept and there is time."""
    return await unless(_index(ours), _renewed(ours), _out_of_time(longest))


async def _renewed(ours: Claim) -> NoReturn:
    every = config().vector_store.ingest_lease / 3
    pause = every
    while True:
        await asyncio.sleep(pause)
        try:
            await database.run(claims.renew, ours)
            pause = every
        except DatabaseUnavailable:
            # Nobody takes the job without a database, so the work goes on; then we are to be the first to come back.
            pause = min(every, _SOON)


async def _out_of_time(longest: float | None) -> NoReturn:
    told = asyncio.Event()
    ours = (asyncio.get_running_loop(), told)
    _under_way.add(ours)
    try:
        if not _ending:
            async with asyncio.timeout(longest):
                await told.wait()
        await asyncio.sleep(_GRACE)
        raise _OutOfTime(ending=True)
    except TimeoutError as error:
        raise _OutOfTime(ending=False) from error
    finally:
        _under_way.discard(ours)


async def _index(ours: Claim) -> Ingested:
    scope = Scope(ours.workspace_id)
    document = await _read(ours)

    async def progress(done: int, total: int) -> None:
        await database.run(claims.show, ours, done=done, total=total)

    made = await drafting.draft(scope, ours.into, document, embedder_of=drafting.embedder_for, progress=progress)
    if not made.pieces:
        raise NoText(f"{parsing.shown(ours.name)} has no text to index.")
    written = await scope.run(claims.finish, ours, made)
    await indexing.grown(ours.into.active)
    return written


async def _read(ours: Claim) -> SourceDocument:
    """The document's text, out of what was uploaded or of what stands at its URL."""
    data, name, content_type = ours.content, ours.name, ours.content_type
    if data is None:
        found = await fetching.fetch(ours.url, max_bytes=config().vector_store.max_document_bytes)
        data, name, content_type = found.data, found.name, found.content_type
    parsed = await parsing.parse(data, name=name, content_type=content_type)
    pages = parsed.metadata.get("pages") or ()
    # As people wrote it into the file, or a parser made it up: also text that PostgreSQL doesn't hold.
    metadata = storable_values({key: value for key, value in parsed.metadata.items() if key != "pages"}) | ours.metadata
    return SourceDocument(
        source=ours.source,
        text=storable(parsed.text),
        title=storable(ours.title or parsed.title),
        markdown=parsed.markdown,
        metadata=metadata,
        pages=tuple(pages),
        dated_at=_date(metadata.get("date")),
        content_type=content_type[:200],
        size=len(data),
        upload_hash=sha256(data).hexdigest(),
    )


def _date(value: Any) -> datetime | None:
    """A date as ISO 8601 has it, or as e-mails do, in UTC. None for one whose year no datetime has there: PostgreSQL
    would keep it, and nobody could read its row again.
    """
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        try:
            found = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
    try:
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except OverflowError:
        return None


def _atomic(unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with transaction.atomic():
        return unit(*args, **kwargs)
