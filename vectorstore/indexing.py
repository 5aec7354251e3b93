"""Approximate indexes of large sets in PostgreSQL: built in the background, and dropped when nothing needs them.

A set of few vectors is compared exactly. From VECTOR_STORE["INDEX_ROWS"] on it gets an HNSW index of its own (a partial
one: all sets share a table), built concurrently, while people search and add. One index is built at a time in a
database: each takes a core and memory for minutes, and two on one table would wait for each other.

The row of the set says what its index is; searches ask one that is `ready`. Who builds renews a lease in that row, and
holds an advisory lock of PostgreSQL. A worker that is killed leaves an invalid index, which the next one replaces, or a
statement that PostgreSQL carries on with: its connection keeps the lock, and what it built is then found to be there.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Any, Final, Literal
from uuid import UUID, uuid4

import psycopg
from django.db import connection
from django.db.models import F, Q
from django.db.models.functions import Now
from psycopg import errors, sql

from kernel import database, jobs
from kernel.conf import config
from vectorstore.leases import LeaseLost, while_renewing
from vectorstore.models import ChunkVector, IndexState, SetState, VectorSet
from vectorstore.rows import BESIDE
from vectorstore.values import SetInfo

logger = logging.getLogger(__name__)

#: `busy`: another index is being built. `taken`: this one is, by somebody else, or the set is gone.
Outcome = Literal["ready", "failed", "busy", "taken"]

_PREFIX = "vectorstore_hnsw_"
#: Recall is 0.99 and more with the searches' depth (vectorstore.index_scan); with less care in building, whole clusters
#: are lost that lie far from the others.
_LINKS, _EF_CONSTRUCTION = 16, 256
#: What pgvector's index takes at most, in dimensions.
_LONGEST: Final = {"vector": 2000, "halfvec": 4000}
#: An advisory lock is a number that all who want it know.
_LOCK = 0x636861696E
_LEASE = timedelta(minutes=2)
_TOLD_AGAIN = timedelta(minutes=1)
#: A set that is small, or was, is not counted again before.
_LOOKED = timedelta(seconds=10)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=1), timedelta(days=1)
#: How long a build waits for transactions that began before it; without that it would stand in VACUUM's way for ever.
_LOCK_WAIT = "2min"
_SWEPT = 100
#: Seconds that `ensure` waits for others' builds, and between its looks.
_PATIENCE, _LOOK = 240.0, 1.0


class _Failure(Exception):
    """`reason` is for people. `for_good`: another try is no use before something else has changed."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        self.reason, self.for_good = reason, for_good
        super().__init__(reason)


@dataclass(frozen=True)
class _Index:
    """An index as PostgreSQL has it. `rows`: an estimate, kept by VACUUM."""

    name: str
    valid: bool
    rows: int
    kind: str

    @property
    def set_id(self) -> UUID:
        return UUID(self.name.removeprefix(_PREFIX))


async def grown(vectors: SetInfo) -> None:
    """Tell a worker of a set that may have become large; for after each document. What it misses a sweep finds."""
    if vectors.backend == BESIDE and vectors.index == IndexState.NONE and await database.run(_became_large, vectors.id):
        await asyncio.to_thread(jobs.tell, "vectorstore.tasks.build_index", str(vectors.id))


async def work(set_id: UUID) -> Outcome:
    """Build the index of a set, if that is nobody's work. It lasts as long as it takes; cancelled, it stops."""
    token = uuid4().hex
    row = await database.run(_claim, set_id, token)
    if row is None:
        return "taken"
    if row.index == IndexState.READY:
        return "ready"
    builder = _Builder(set_id=set_id, dimension=row.dimension, attempts=row.index_attempts)
    try:
        made = await while_renewing(_built(builder), lambda: database.run(_renew, set_id, token), every=_LEASE / 4)
    except LeaseLost:
        return "taken"
    except _Failure as failure:
        logger.warning("action=index_failed set=%s attempt=%d", set_id, row.index_attempts + 1)
        await database.run(_failed, set_id, token, failure)
        return "failed"
    if made is None:
        await database.run(_postponed, set_id, token)
        return "busy"
    await database.run(_finished, set_id, token, made)
    logger.info("action=index_built set=%s rows=%d", set_id, made.rows)
    return "ready"


async def ensure(set_id: UUID) -> bool:
    """Build the index of a set before it is searched, if it is large. False: others are building, ask again.

    An index that fails holds nobody up: searches are exact until a later try succeeds.
    """
    ends = monotonic() + _PATIENCE
    while await database.run(_is_wanted, set_id):
        if await work(set_id) not in ("busy", "taken"):
            break
        if monotonic() > ends:
            return False
        await asyncio.sleep(_LOOK)
    return True


def overdue() -> list[UUID]:
    """Large sets without an index that nobody builds (database work): workers are to be told of them, and now are."""
    sets = VectorSet.objects.filter(backend=BESIDE, state=SetState.ACTIVE).exclude(index=IndexState.READY)
    due = sets.filter(Q(index_due_at=None) | Q(index_due_at__lte=Now()))
    found = list(due.order_by(F("index_due_at").asc(nulls_first=True)).values_list("id", "index")[:_SWEPT])
    large = [set_id for set_id, _ in found if _has(set_id, config().vector_store.index_rows)]
    small = [set_id for set_id, _ in found if set_id not in large]
    due.filter(id__in=small).update(index=IndexState.NONE, index_attempts=0, index_due_at=Now() + _LOOKED)
    due.filter(id__in=large).update(index=IndexState.BUILDING, index_owner="", index_due_at=Now() + _TOLD_AGAIN)
    return large


def drop_unneeded() -> int:
    """Drop indexes of sets that are gone, replaced or small by now, and what killed builders left; how many.

    Database work, outside of a transaction. Nothing is dropped while an index is being built.
    """
    if not _unneeded():
        return 0
    dropped = 0
    with _alone() as alone:
        if not _locked(alone):
            return 0
        for index in _unneeded():
            VectorSet.objects.filter(id=index.set_id, index=IndexState.READY).update(
                index=IndexState.NONE, index_type="", index_rows=0, index_due_at=None
            )
            _drop(alone, index.name)
            dropped += 1
    return dropped


def _kind(dimension: int) -> str:
    """What the index is over. Raises _Failure: pgvector has none for vectors so long."""
    for kind in (config().vector_store.index_type, "halfvec"):
        if dimension <= _LONGEST[kind]:
            return kind
    raise _Failure(f"Vectors of {dimension} dimensions can't be indexed; searches compare all of them.", for_good=True)


def _has(set_id: UUID, count: int) -> bool:
    return ChunkVector.objects.filter(vector_set_id=set_id)[:count].count() >= count


def _became_large(set_id: UUID) -> bool:
    """Whether a worker is to be told. Sets that are still small are counted every few seconds at most."""
    found = VectorSet.objects.filter(id=set_id, index=IndexState.NONE).exclude(index_due_at__gt=Now())
    if not found.exists():
        return False
    if not _has(set_id, config().vector_store.index_rows):
        found.update(index_due_at=Now() + _LOOKED)
        return False
    return bool(found.update(index=IndexState.BUILDING, index_owner="", index_due_at=Now() + _TOLD_AGAIN))


def _is_wanted(set_id: UUID) -> bool:
    found = VectorSet.objects.filter(id=set_id, backend=BESIDE).exclude(index=IndexState.READY)
    return found.exists() and _has(set_id, config().vector_store.index_rows)


def _claim(set_id: UUID, token: str) -> VectorSet | None:
    """The set, from now on ours unless its index is ready; None: it is somebody's, or gone."""
    sets = VectorSet.objects.filter(id=set_id, backend=BESIDE).exclude(state=SetState.RETIRED)
    free = sets.exclude(index=IndexState.READY).filter(Q(index_owner="") | Q(index_due_at__lte=Now()))
    free.update(index=IndexState.BUILDING, index_owner=token, index_due_at=Now() + _LEASE)
    return sets.filter(Q(index_owner=token) | Q(index=IndexState.READY)).first()


def _renew(set_id: UUID, token: str) -> bool:
    """False: the set is gone or given up."""
    sets = VectorSet.objects.filter(id=set_id).exclude(state=SetState.RETIRED)
    # Without an owner: another worker took it when a renewal was late, and found PostgreSQL busy with ours.
    ours = sets.filter(index_owner__in=(token, ""))
    return bool(ours.update(index=IndexState.BUILDING, index_owner=token, index_due_at=Now() + _LEASE))


def _finished(set_id: UUID, token: str, made: _Index) -> None:
    VectorSet.objects.filter(id=set_id, index_owner__in=(token, "")).update(
        index=IndexState.READY,
        index_type=made.kind,
        index_rows=made.rows,
        index_attempts=0,
        index_owner="",
        index_due_at=None,
        reason="",
    )


def _postponed(set_id: UUID, token: str) -> None:
    VectorSet.objects.filter(id=set_id, index_owner=token).update(index_owner="", index_due_at=Now() + _TOLD_AGAIN)


def _failed(set_id: UUID, token: str, failure: _Failure) -> None:
    """For now: each try waits four times as long as the one before, a day at most."""
    ours = VectorSet.objects.filter(id=set_id, index_owner=token)
    attempts = ours.values_list("index_attempts", flat=True).first() or 0
    pause = _LONGEST_PAUSE if failure.for_good else _FIRST_PAUSE * 4 ** min(attempts, 10)
    ours.update(
        index=IndexState.FAILED,
        index_attempts=min(attempts + 1, 1000),
        index_owner="",
        index_due_at=Now() + min(pause, _LONGEST_PAUSE),
        reason=failure.reason,
    )


@contextmanager
def _alone() -> Iterator["psycopg.Connection[Any]"]:
    """A connection of its own, without transactions, whose statements take as long as they need."""
    given = connection.get_connection_params()
    with psycopg.connect(**given, autocommit=True) as made:
        for name, value in {
            "statement_timeout": "0",
            "idle_session_timeout": "0",
            "lock_timeout": _LOCK_WAIT,
        }.items():
            made.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        yield made


def _locked(alone: "psycopg.Connection[Any]") -> bool:
    """Whether this connection is the one that builds and drops, until it ends."""
    return bool(alone.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone()[0])  # type: ignore[index]


def _drop(alone: "psycopg.Connection[Any]", name: str) -> None:
    alone.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(name)))


async def _built(builder: "_Builder") -> _Index | None:
    """In a thread; when this is cancelled, so is the statement."""
    building = asyncio.ensure_future(asyncio.to_thread(builder.build))
    try:
        return await asyncio.shield(building)
    finally:
        while not building.done():
            # Again, until it is heard: between two statements it isn't.
            await asyncio.to_thread(builder.cancel)
            await asyncio.wait([building], timeout=_LOOK)
        await asyncio.gather(building, return_exceptions=True)


@dataclass(kw_only=True)
class _Builder:
    """Builds one index in a thread, while another one may cancel it."""

    set_id: UUID
    dimension: int
    attempts: int
    _connection: Any = field(default=None, init=False)
    _cancelled: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        return f"{_PREFIX}{self.set_id.hex}"

    def build(self) -> _Index | None:
        """The index; None: another one is being built. Raises _Failure."""
        kind = _kind(self.dimension)
        try:
            with _alone() as self._connection:
                return self._build(kind) if _locked(self._connection) else None
        except psycopg.Error as error:
            raise _Failure(_reason(error)) from None

    def cancel(self) -> None:
        self._cancelled = True
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.cancel_safe(timeout=5)

    def _build(self, kind: str) -> _Index:
        found = self._found()
        if found is not None and found.valid:
            return found
        _drop(self._connection, self.name)
        if self._cancelled:
            raise _Failure("Given up.")
        self._connection.execute(f"SET maintenance_work_mem = '{self._memory(kind)}kB'")
        if self.attempts:
            # Parallel workers need the memory as shared memory, of which containers often have little.
            self._connection.execute("SET max_parallel_maintenance_workers = 0")
        self._connection.execute(
            f"""CREATE INDEX CONCURRENTLY "{self.name}" ON vectorstore_chunkvector
                USING hnsw ((embedding::{kind}({self.dimension})) {kind}_cosine_ops)
                WITH (m = {_LINKS}, ef_construction = {_EF_CONSTRUCTION})
                WHERE vector_set_id = '{self.set_id}'"""
        )
        made = self._found()
        if made is None or not made.valid:
            raise _Failure("PostgreSQL left the index unfinished.")
        return made

    def _found(self) -> _Index | None:
        rows = self._connection.execute(f"{_INDEXES} AND c.relname = %s", [self.name]).fetchall()
        return _Index(*rows[0]) if rows else None

    def _memory(self, kind: str) -> int:
        """For the whole graph, in KiB, as far as the settings allow; a build that doesn't fit takes far longer."""
        counted = "SELECT count(*) FROM vectorstore_chunkvector WHERE vector_set_id = %s"
        (rows,) = self._connection.execute(counted, [self.set_id]).fetchone()
        each = self.dimension * (2 if kind == "halfvec" else 4) + 24 * _LINKS + 300
        most = config().vector_store.index_memory_bytes
        return int(min(max(rows * each * 5 // 4, 67_108_864), most) // 1024)


_INDEXES = rf"""
    SELECT c.relname, i.indisvalid, greatest(c.reltuples, 0)::bigint,
        CASE WHEN pg_get_indexdef(c.oid) LIKE '%%halfvec_cosine_ops%%' THEN 'halfvec' ELSE 'vector' END
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = 'vectorstore_chunkvector'::regclass AND c.relname ~ '^{_PREFIX}[0-9a-f]{{32}}$'"""  # noqa: S608  made of our own parts


def _unneeded() -> list[_Index]:
    """What there is to drop; sets whose index is gone or broken are corrected on the way."""
    with connection.cursor() as cursor:
        cursor.execute(_INDEXES, [])
        indexes = [_Index(*row) for row in cursor.fetchall()]
    whole = [index.set_id for index in indexes if index.valid]
    VectorSet.objects.filter(index=IndexState.READY).exclude(id__in=whole).update(
        index=IndexState.NONE, index_type="", index_rows=0, index_due_at=None
    )
    sets = {row.id: row for row in VectorSet.objects.filter(id__in=[index.set_id for index in indexes])}
    claimed = VectorSet.objects.filter(id__in=sets, index_due_at__gt=Now()).exclude(index_owner="")
    theirs = set(claimed.exclude(state=SetState.RETIRED).values_list("id", flat=True))
    return [index for index in indexes if index.set_id not in theirs and not _is_kept(index, sets.get(index.set_id))]


def _is_kept(index: _Index, row: VectorSet | None) -> bool:
    # Far below the bound, so that a set near it doesn't get and lose its index again and again.
    least = max(1, config().vector_store.index_rows // 2)
    if row is None or not index.valid:
        return False
    if row.index != IndexState.READY and row.state == SetState.RETIRED:
        return False
    return (row.index == IndexState.READY and index.rows >= least) or _has(row.id, least)


def _reason(error: psycopg.Error) -> str:
    """For people, without PostgreSQL's own words."""
    match error:
        case errors.InsufficientPrivilege():
            return "The database's role may not create indexes on its tables; make it their owner."
        case errors.LockNotAvailable() | errors.DeadlockDetected():
            return "A transaction that has been open for long kept the index from being built."
        case errors.QueryCanceled():
            return "Building the index was cancelled."
        case errors.DiskFull() | errors.OutOfMemory():
            return "PostgreSQL has too little disk or memory for the index; see INDEX_MEMORY_BYTES."
        case psycopg.OperationalError():
            return "The connection to PostgreSQL was lost while the index was built."
    return f"PostgreSQL could not build the index (code {error.sqlstate or 'unknown'})."
