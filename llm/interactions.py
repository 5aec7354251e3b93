"""Reading the interaction log: who may see which rows, and pages of them by indexed columns."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from accounts.access import Caller, workspace_for
from accounts.models import ADMINS, READERS, Membership, Workspace
from kernel.errors import NotFound
from llm.models import InteractionLog

#: Filter → column; each is part of an index that ends with the time.
FILTERS = {
    "status": "status",
    "model": "model_name",
    "user": "user_id",
    "workflow": "workflow_id",
    "session": "session_id",
    "run": "run_id",
}


def is_admin(caller: Caller, workspace: Workspace) -> bool:
    return Membership.objects.filter(workspace=workspace, user_id=caller.user_id, role__in=ADMINS).exists()


def rows_for(caller: Caller, workspace_id: UUID | None = None) -> "QuerySet[InteractionLog]":
    """The rows of a workspace (None: the caller's own) that the caller may see: all for its admins, else their own.

    Raises Forbidden for a workspace that the caller isn't in.
    """
    workspace = workspace_for(caller, workspace_id, roles=READERS)
    rows = InteractionLog.objects.filter(workspace=workspace)
    return rows if is_admin(caller, workspace) else rows.filter(user_id=caller.user_id)


def rows_everywhere(caller: Caller) -> "QuerySet[InteractionLog]":
    """The rows of all workspaces that the caller administers."""
    mine = Membership.objects.filter(user_id=caller.user_id, role__in=ADMINS).values_list("workspace_id", flat=True)
    return InteractionLog.objects.filter(workspace_id__in=list(mine))


def page(
    rows: "QuerySet[InteractionLog]",
    *,
    filters: Mapping[str, Any],
    since: datetime | None = None,
    until: datetime | None = None,
    before: UUID | None = None,
    limit: int,
) -> tuple[list[InteractionLog], UUID | None]:
    """A page, newest first, and the `before` of the next one (None: it was the last). Raises NotFound for `before`."""
    found = rows.filter(**{FILTERS[name]: value for name, value in filters.items() if value is not None})
    if since is not None:
        found = found.filter(created_at__gte=since)
    if until is not None:
        found = found.filter(created_at__lt=until)
    if before is not None:
        at = rows.filter(id=before).values_list("created_at", flat=True).first()
        if at is None:
            raise NotFound("There is no such row to go on from; start without `before`.")
        # One comparison of both: an index gives its first half, and no plan can take it apart.
        after = "(llm_interactionlog.created_at, llm_interactionlog.id) < (%s, %s)"
        found = found.extra(where=[after], params=[at, before])  # noqa: S610  a constant text, values as parameters
    result = list(found.defer("prompt_text", "response_text", "steps").order_by("-created_at", "-id")[: limit + 1])
    return result[:limit], result[limit - 1].id if len(result) > limit else None


def one(caller: Caller, row_id: UUID) -> InteractionLog:
    """A row with its content. Raises NotFound, also for one that the caller may not see."""
    found: InteractionLog | None = _visible(caller).filter(id=row_id).first()
    if found is None:
        raise NotFound("There is no such row in the logs that you may see.")
    return found


def calls_of(caller: Caller, run_id: UUID) -> list[InteractionLog]:
    """All calls of a run, in their order. Raises NotFound, also for a run that the caller may not see."""
    found = list(_visible(caller).filter(run_id=run_id).order_by("call"))
    if not found:
        raise NotFound("There is no such run in the logs that you may see.")
    return found


def _visible(caller: Caller) -> "QuerySet[InteractionLog]":
    mine = Membership.objects.filter(user_id=caller.user_id)
    admin = mine.filter(role__in=ADMINS).values("workspace_id")
    member = mine.values("workspace_id")
    return InteractionLog.objects.filter(Q(workspace_id__in=admin) | Q(workspace_id__in=member, user_id=caller.user_id))
