"""A workspace's rows: the one place where the tenant and the reader enter a query. Nothing else in this app starts a
queryset on them.

Two walls: every queryset is filtered by the workspace, and while a unit of work of a scope runs, PostgreSQL's row
security lets the connection see no other workspace's rows, whatever the query says (migration 0003).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts.models import ADMINS, Membership
from kernel import database
from vectorstore.models import (
    Access,
    Chunk,
    Collection,
    CollectionMember,
    Document,
    IngestJob,
    VectorSet,
)

P = ParamSpec("P")
T = TypeVar("T")


class _Trusted:
    """Our own work, on behalf of nobody: it reads every collection of the workspace."""


TRUSTED: Final = _Trusted()


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

    @contextmanager
    def wall(self) -> Iterator[None]:
        """A transaction in which the connection sees the rows of this workspace alone."""
        nested = connection.in_atomic_block
        with transaction.atomic():
            _set({"chain.workspace": str(self.workspace_id), **self._settings})
            yield
        if nested:
            # The setting lasts as long as the outermost transaction, which isn't ours.
            _set({"chain.workspace": ""})

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


def _set(settings: Mapping[str, str]) -> None:
    calls = ", ".join(["set_config(%s, %s, true)"] * len(settings))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {calls}", [each for pair in settings.items() for each in pair])
