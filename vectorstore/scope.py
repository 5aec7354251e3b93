"""A workspace's rows: the one place where the tenant and the reader enter a query. Nothing else in this app starts a
queryset on them.

Two walls: every queryset is filtered by the workspace, and while a unit of work of a scope runs, PostgreSQL's row
security lets the connection see no other workspace's rows, whatever the query says (migration 0003).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar
from uuid import UUID

import psycopg
from django.db import NotSupportedError, connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts.models import ADMINS, Membership
from kernel import database
from kernel.conf import config
from vectorstore.filters import Sql
from vectorstore.models import (
    Access,
    Chunk,
    Collection,
    CollectionMember,
    Document,
    IngestJob,
    SetState,
    VectorSet,
)
from vectorstore.values import CollectionInfo

P = ParamSpec("P")
T = TypeVar("T")


class _Trusted:
    """Our own work, on behalf of nobody: it reads every collection of the workspace."""


TRUSTED: Final = _Trusted()
#: The setting of PostgreSQL that row security reads.
_WORKSPACE: Final = "chain.workspace"


class Scope:
    """`reader`: whose collections they are; a user's id, None for somebody unknown, or TRUSTED."""

    def __init__(
        self,
        workspace_id: UUID,
        reader: int | _Trusted | None = TRUSTED,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.workspace_id = workspace_id
        self.reader = reader
        self._settings = settings

    def tuned(self, settings: Mapping[str, str]) -> Self:
        """The same rows; its units run with these settings of PostgreSQL, made in the statement of the wall."""
        return type(self)(self.workspace_id, self.reader, settings=settings)

    async def run(self, unit: Callable[Concatenate[Self, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `unit(scope, …)` as one unit of database work, in one transaction, behind the wall."""

        def walled() -> T:
            with self.wall():
                return unit(self, *args, **kwargs)

        return await database.run(walled)

    async def ask(self, statement: Callable[[Self], Sql], *, planned_once: bool) -> list[tuple[Any, ...]]:
        """The rows of one statement behind the wall, in one round trip: a transaction takes four, and so does `run`.

        `statement(scope)` gives it. `planned_once`: whatever its values are, PostgreSQL goes about it in the same way,
        so a connection keeps the plan for the statements of the same text.
        """
        return await database.run(self._ask, statement, planned_once=planned_once)

    def _ask(self, statement: Callable[[Self], Sql], *, planned_once: bool) -> list[tuple[Any, ...]]:
        text, values = statement(self)
        if connection.in_atomic_block:
            with self.wall(), connection.cursor() as cursor:
                cursor.execute(text, values)
                return list(cursor.fetchall())
        try:
            return self._sent(text, values, planned_once=planned_once)
        except NotSupportedError:
            # A plan that was kept, and a column that has another type since. The connection has more of them.
            connection.connection.close()
            connection.close()
            return self._sent(text, values, planned_once=planned_once)

    def _sent(self, text: str, values: Sequence[Any], *, planned_once: bool) -> list[tuple[Any, ...]]:
        connection.ensure_connection()
        settings = self._behind_wall | ({"plan_cache_mode": "force_generic_plan"} if planned_once else {})
        # What is sent in a pipeline is one transaction up to its end.
        with connection.wrap_database_errors, _preparing(connection.connection), connection.connection.pipeline():
            _cursor(_PreparedCursor).execute(*_setting(settings))
            cursor = _cursor(_PreparedCursor if planned_once else _Cursor)
            cursor.execute(text, values)
        return list(cursor.fetchall())

    @contextmanager
    def wall(self) -> Iterator[None]:
        """A transaction in which the connection sees the rows of this workspace alone."""
        around = _whose() if connection.in_atomic_block else None
        with transaction.atomic():
            _set(self._behind_wall)
            yield
        if around is not None:
            # The setting lasts as long as the outermost transaction, which isn't ours.
            _set({_WORKSPACE: around})

    @property
    def _behind_wall(self) -> dict[str, str]:
        return {_WORKSPACE: str(self.workspace_id), **self._settings}

    @property
    def collections(self) -> QuerySet[Any]:
        """Those that the reader may read."""
        found = Collection.objects.filter(workspace_id=self.workspace_id)
        if isinstance(self.reader, _Trusted):
            return found
        if self.reader is None:
            return found.filter(access=Access.WORKSPACE)
        theirs = CollectionMember.objects.filter(collection_id=OuterRef("pk"), user_id=self.reader)
        admins = Membership.objects.filter(workspace_id=self.workspace_id, user_id=self.reader, role__in=ADMINS)
        return found.filter(Q(access=Access.WORKSPACE) | Exists(theirs) | Exists(admins))

    def readable(self, found: CollectionInfo) -> Sql:
        """`id` and `name` of a collection, if the reader may read it and it still is what was found."""
        return _readable(self.workspace_id, self.reader, found)

    @property
    def documents(self) -> QuerySet[Any]:
        return self._readable(Document).defer("text")

    @property
    def chunks(self) -> QuerySet[Any]:
        return self._readable(Chunk)

    @property
    def jobs(self) -> QuerySet[Any]:
        return IngestJob.objects.filter(workspace_id=self.workspace_id)

    @property
    def vector_sets(self) -> QuerySet[Any]:
        return self._readable(VectorSet)

    def _readable(self, model: Any) -> QuerySet[Any]:
        found: QuerySet[Any] = model.objects.filter(workspace_id=self.workspace_id)
        if not isinstance(self.reader, _Trusted):
            found = found.filter(collection__in=self.collections.values("pk"))
        return found


@lru_cache(1024)
def _readable(workspace_id: UUID, reader: int | _Trusted | None, found: CollectionInfo) -> Sql:
    """Kept as text: Django takes longer to make it than PostgreSQL to answer it."""
    active = found.active
    same: dict[str, Any] = {"name": found.name, "language": found.language}
    of_set = {"id": active.id, "state": SetState.ACTIVE, "index": active.index, "index_type": active.index_type}
    same |= {f"vector_sets__{name}": value for name, value in of_set.items()}
    rows = Scope(workspace_id, reader).collections.filter(id=found.id, **same)
    text, values = rows.values("id", "name").query.sql_with_params()
    return text, list(values)


def _whose() -> str:
    """The workspace whose wall stands; empty: there is none."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(current_setting(%s, true), '')", [_WORKSPACE])
        return str(cursor.fetchone()[0])


def _set(settings: Mapping[str, str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(*_setting(settings))


def _setting(settings: Mapping[str, str]) -> Sql:
    calls = ", ".join(f"set_config('{name}', %s, true)" for name in settings)
    return f"SELECT {calls}", list(settings.values())


@contextmanager
def _preparing(raw: "psycopg.Connection[Any]") -> Iterator[None]:
    """Statements may be kept. Not for longer: psycopg keeps the texts of all that it may have to prepare one day, and
    Django's have what people wrote in them.
    """
    before = raw.prepare_threshold
    raw.prepare_threshold = 0 if config().database.prepare else None
    try:
        yield
    finally:
        raw.prepare_threshold = before


class _Cursor(psycopg.Cursor[tuple[Any, ...]]):
    """Sends values beside a statement, where Django's own writes them into its text."""

    prepares = False

    def execute(self, query: Any, params: Any = None, **how: Any) -> Self:
        return super().execute(query, params, **{"prepare": self.prepares} | how)


class _PreparedCursor(_Cursor):
    """Keeps the statement in the connection, if it may; psycopg lets go of those that were not used for long."""

    prepares = True


def _cursor(kind: type[_Cursor]) -> Any:
    """A cursor of Django's connection, with what Django has around each: wrappers, and the log of queries."""
    made: Any = kind(connection.connection)
    return connection.make_debug_cursor(made) if connection.queries_logged else connection.make_cursor(made)
