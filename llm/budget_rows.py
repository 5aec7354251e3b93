"""Budgets as rows that a workspace's admins set, and how much of them is used. Database work, one unit each."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.utils import timezone

from accounts.access import Caller, workspace_for
from accounts.models import ADMINS, READERS, Membership, Workspace
from accounts.rest import newest_first
from kernel.errors import Conflict, Forbidden, Invalid, NotFound
from llm import budgets, configuration, counters, generation
from llm.models import Budget, BudgetCounter, BudgetKind

#: Every one of them is looked at for every call.
MAX_PER_WORKSPACE = 100


@dataclass(frozen=True, kw_only=True)
class Use:
    """How much of a bound is used in the window from `since` to before `until` (None: it has no windows)."""

    kind: str
    per: str
    limit: Decimal
    used: Decimal
    reserved: Decimal
    since: datetime | None
    until: datetime | None


def page(
    caller: Caller, workspace_id: UUID | None, *, limit: int, before: UUID | None
) -> tuple[list[Budget], UUID | None]:
    """The rows of a workspace, newest first; who doesn't administer it sees those that may hold for them."""
    workspace = workspace_for(caller, workspace_id, roles=READERS)
    rows = Budget.objects.filter(workspace=workspace)
    if not Membership.objects.filter(workspace=workspace, user_id=caller.user_id, role__in=ADMINS).exists():
        rows = rows.filter(user=None) | rows.filter(user_id=caller.user_id)
    return newest_first(rows, limit=limit, before=before)


def create(caller: Caller, workspace_id: UUID | None, *, user_id: int | None, **values: Any) -> Budget:
    """Set a budget; it holds from the next run on. Raises Forbidden, Invalid for a person who isn't a member, Conflict
    where there are too many."""
    workspace = workspace_for(caller, workspace_id, roles=ADMINS)
    check_new(workspace, user_id)
    return Budget.objects.create(workspace=workspace, user_id=user_id, **values)


def check_new(workspace: Workspace, user_id: int | None) -> None:
    """Raises Invalid for a person who isn't a member, Conflict where there are too many."""
    if user_id is not None and not Membership.objects.filter(workspace=workspace, user_id=user_id).exists():
        raise Invalid("`user` is not a member of this workspace.")
    if Budget.objects.filter(workspace=workspace).count() >= MAX_PER_WORKSPACE:
        raise Conflict(f"A workspace has at most {MAX_PER_WORKSPACE} budgets; remove one first.")


def change(caller: Caller, budget_id: UUID, **values: Any) -> Budget:
    """Change a budget's values. Raises NotFound, Forbidden."""
    budget = _find(caller, budget_id)
    for name, value in values.items():
        setattr(budget, name, value)
    budget.save()
    return budget


def remove(caller: Caller, budget_id: UUID) -> None:
    """Raises NotFound, Forbidden."""
    _find(caller, budget_id).delete()


def use(caller: Caller, workspace_id: UUID | None) -> list[Use]:
    """The bounds that hold for the caller now, those of the setting too, and what is used of them."""
    workspace = workspace_for(caller, workspace_id, roles=READERS)
    holding = configuration.at(workspace.id, generation.of(workspace.id))
    bounds = budgets.applicable(holding, caller.user_id)
    now = timezone.now()
    windows = {kind: counters.window_of(kind, now) for kind in BudgetKind}
    rows = BudgetCounter.objects.filter(
        workspace=workspace, key__in=[key for key, _ in bounds], window__in=list(windows.values())
    )
    found = {(row.key, row.window): row for row in rows}
    uses = []
    for key, bound in bounds:
        row = found.get((key, windows[BudgetKind(bound.kind)]))
        since = None if bound.kind == BudgetKind.RUNS else windows[BudgetKind(bound.kind)]
        uses.append(
            Use(
                kind=bound.kind,
                per="user" if ":user:" in key else "workspace",
                limit=bound.limit,
                used=row.used if row else Decimal(0),
                reserved=row.reserved if row else Decimal(0),
                since=since,
                until=None if since is None else _end(bound.kind, since),
            )
        )
    return uses


def _find(caller: Caller, budget_id: UUID) -> Budget:
    budget: Budget | None = Budget.objects.visible_to(caller).filter(id=budget_id).first()
    if budget is None:
        raise NotFound("There is no such budget in your workspaces.")
    if not Membership.objects.filter(
        workspace_id=budget.workspace_id, user_id=caller.user_id, role__in=ADMINS
    ).exists():
        raise Forbidden("Only the workspace's owners and admins set budgets.")
    return budget


def _end(kind: str, since: datetime) -> datetime:
    match kind:
        case BudgetKind.MESSAGES:
            return since + timedelta(minutes=1)
        case BudgetKind.TOKENS:
            return since + timedelta(days=1)
        case _:
            return (since + timedelta(days=31)).replace(day=1)
