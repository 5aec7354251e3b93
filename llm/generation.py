"""Noticing changes of configuration: a counter a workspace, and one for all of them.

Whoever changes a prompt, a workflow, a model, a price or a budget bumps the counter in the same transaction. Whoever
begins a run reads it (with the query that it makes anyway) and uses what is cached under that number: a change is seen
by the next run of every process, and nothing has to be told to anybody.
"""

from uuid import UUID

from django.db import models, transaction
from django.db.models.functions import Coalesce

from llm.models import ConfigGeneration


def bump(workspace_id: UUID | None) -> None:
    """Say that the configuration of a workspace (None: of all) changes; call it inside the changing transaction."""
    mine = models.Q(workspace=None) if workspace_id is None else models.Q(workspace_id=workspace_id)
    with transaction.atomic():
        if not ConfigGeneration.objects.filter(mine).update(value=models.F("value") + 1):
            # The first change ever; two at once make one row, and the second counts on it.
            ConfigGeneration.objects.bulk_create([ConfigGeneration(workspace_id=workspace_id)], ignore_conflicts=True)
            ConfigGeneration.objects.filter(mine).update(value=models.F("value") + 1)


def beside(column: str) -> models.Subquery:
    """The counter of the workspace that a query's `column` names, to be annotated; NULL before the first change."""
    rows = ConfigGeneration.objects.filter(models.Q(workspace_id=models.OuterRef(column)) | models.Q(workspace=None))
    total = rows.order_by().annotate(one=models.Value(1)).values("one").annotate(total=models.Sum("value"))
    return models.Subquery(total.values("total"), output_field=models.BigIntegerField(null=True))


def of(workspace_id: UUID) -> int:
    """The counter now (one query)."""
    rows = ConfigGeneration.objects.filter(models.Q(workspace_id=workspace_id) | models.Q(workspace=None))
    value: int = rows.aggregate(total=Coalesce(models.Sum("value"), 0))["total"]
    return value
