"""A workspace's rows: the one place where the tenant enters a query. Nothing else in this app starts a queryset."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from vectorstore.models import Chunk, Collection, Document


class Scope:
    def __init__(self, workspace_id: UUID) -> None:
        self.workspace_id = workspace_id

    @property
    def collections(self) -> QuerySet[Any]:
        return self._rows(Collection)

    @property
    def documents(self) -> QuerySet[Any]:
        return self._rows(Document)

    @property
    def chunks(self) -> QuerySet[Any]:
        return self._rows(Chunk)

    def _rows(self, model: Any) -> QuerySet[Any]:
        found: QuerySet[Any] = model.objects.filter(workspace_id=self.workspace_id)
        return found
