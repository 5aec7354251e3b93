"""How budgets are counted in PostgreSQL: what is used, what is held back, and who holds it.

Every count is part of its caller's transaction, and takes the workspace's row first: whoever counts in a workspace
does it alone, so a count can't be overshot and no two transactions can wait for each other's counters. Windows are
those of the database's clock, in UTC.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Now

from accounts.models import Workspace
from kernel.ids import new_id
from llm.models import BudgetCounter, BudgetKind, Reservation

#: The window of what is counted as long as it lasts.
ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
_BATCH = 1000
_UNITS = {BudgetKind.MESSAGES: "minute", BudgetKind.TOKENS: "day", BudgetKind.MONEY: "month"}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is asked of one counter."""

    key: str
    kind: str
    amount: Decimal
    limit: Decimal


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one call came to. `cost` None: nobody knows, so what was held back for it counts."""

    call: int
    tokens: int
    cost: Decimal | None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The first claim that had no room, and the seconds until it may have (None: never)."""

    claim: Claim
    retry_after: float | None


_TAKE = """
INSERT INTO llm_budgetcounter AS c (id, workspace_id, key, "window", used, reserved, created_at, updated_at)
VALUES {rows}
ON CONFLICT (workspace_id, key, "window") DO UPDATE
SET used = c.used + excluded.used, reserved = c.reserved + excluded.reserved, updated_at = excluded.updated_at
WHERE c.used + c.reserved + excluded.used + excluded.reserved <= CASE c.key {limits} END
RETURNING c.key, c.id
"""
_HOLD = """
INSERT INTO llm_reservation (id, workspace_id, counter_id, run_id, call, amount, created_at, updated_at)
VALUES {rows}
"""
_SETTLE = """
WITH spent (call, tokens, cost) AS (VALUES {spent}),
gone AS (
    DELETE FROM llm_reservation WHERE run_id = %s AND {scope} RETURNING counter_id, call, amount
),
sums AS (
    SELECT gone.counter_id, sum(gone.amount) AS freed, sum(
        CASE WHEN gone.call IS NULL THEN 0
             WHEN spent.call IS NULL THEN CASE WHEN %s THEN gone.amount ELSE 0 END
             WHEN c.key LIKE %s THEN spent.tokens
             ELSE coalesce(spent.cost, gone.amount) END
    ) AS used
    FROM gone JOIN llm_budgetcounter c ON c.id = gone.counter_id LEFT JOIN spent ON spent.call = gone.call
    GROUP BY gone.counter_id
)
UPDATE llm_budgetcounter c
SET used = c.used + sums.used, reserved = c.reserved - sums.freed, updated_at = statement_timestamp()
FROM sums WHERE c.id = sums.counter_id
"""
_ROOM = """
SELECT coalesce(c.used, 0) + %s <= %s, extract(epoch FROM date_trunc(%s, t, 'UTC') + %s::interval - t)
FROM (SELECT statement_timestamp() AS t) AS moment
LEFT JOIN llm_budgetcounter c
    ON c.workspace_id = %s AND c.key = %s AND c."window" = date_trunc(%s, t, 'UTC')
"""


def take(workspace_id: UUID, claims: Sequence[Claim], *, run_id: UUID, call: int | None) -> Refusal | None:
    """Take all the claims, or say which one has no room: the caller must then roll back.

    Messages are used at once; everything else is held back until `settle`.
    """
    impossible = next((claim for claim in claims if claim.amount > claim.limit), None)
    if impossible is not None:
        return Refusal(claim=impossible, retry_after=None)
    _alone(workspace_id)
    taken = _insert_counters(workspace_id, claims)
    refused = next((claim for claim in claims if claim.key not in taken), None)
    if refused is not None:
        return Refusal(claim=refused, retry_after=_wait(workspace_id, refused))
    held = [claim for claim in claims if claim.kind != BudgetKind.MESSAGES]
    if held:
        rows = [(new_id(), workspace_id, taken[claim.key], run_id, call, claim.amount) for claim in held]
        one = "(%s, %s, %s, %s, %s, %s, statement_timestamp(), statement_timestamp())"
        _execute(_HOLD.format(rows=", ".join([one] * len(rows))), [value for row in rows for value in row])
    return None


def settle(
    workspace_id: UUID, run_id: UUID, spent: Sequence[Spent], *, rest: Literal["keep", "free", "count", "count_calls"]
) -> None:
    """Give back what was held for these calls, and count what they came to; whatever is gone already stays so.

    `rest` is what becomes of the run's other reservations: they stay, or go as unused, or as used to the full, which
    is what must be assumed of a dead process's calls (`count_calls`: the run itself goes on).
    """
    scope: dict[str, str] = {
        "keep": "call = ANY(%s)", "free": "%s IS NOT NULL", "count": "%s IS NOT NULL",
        "count_calls": "call IS NOT NULL AND %s IS NOT NULL",
    }  # fmt: skip
    _alone(workspace_id)
    # A first row of NULLs gives the columns their types, also when nothing was spent.
    values = ["(NULL::int, NULL::numeric, NULL::numeric)"] + ["(%s, %s, %s)"] * len(spent)
    parameters: list[Any] = [value for one in spent for value in (one.call, Decimal(one.tokens), one.cost)]
    parameters += [run_id, [one.call for one in spent], rest.startswith("count"), f"{BudgetKind.TOKENS}%"]
    _execute(_SETTLE.format(spent=", ".join(values), scope=scope[rest]), parameters)


def prune() -> int:
    """Forget windows that are over, and give back what no run can hold any more; how many counters went.

    A run outlives its process by seconds; what it held is given back with its end. A day later there is only what was
    lost with a session that was deleted while its process died.
    """
    day, months = timedelta(days=1), timedelta(days=62)
    forgotten = Reservation.objects.filter(created_at__lt=Now() - day).order_by()
    for workspace_id, run_id in list(forgotten.values_list("workspace_id", "run_id").distinct()[:_BATCH]):
        with transaction.atomic():
            settle(workspace_id, run_id, (), rest="count")
    rows = BudgetCounter.objects.filter(window__gt=ALWAYS)
    over = rows.filter(window__lt=Now() - day, key__startswith=BudgetKind.MESSAGES)
    older = rows.filter(window__lt=Now() - months, reserved=0)
    return sum(unwanted.delete()[0] for unwanted in (over, older))


def window_of(kind: str, now: datetime) -> datetime:
    """The window of a kind of budget that `now` lies in."""
    now = now.astimezone(UTC)
    match kind:
        case BudgetKind.MESSAGES:
            return now.replace(second=0, microsecond=0)
        case BudgetKind.TOKENS:
            return now.replace(hour=0, minute=0, second=0, microsecond=0)
        case BudgetKind.MONEY:
            return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        case _:
            return ALWAYS


def _alone(workspace_id: UUID) -> None:
    """Wait for everybody else who counts in this workspace. Rows that only refer to it are not held up."""
    list(Workspace.objects.filter(id=workspace_id).select_for_update(no_key=True).values_list("id"))


def _insert_counters(workspace_id: UUID, claims: Sequence[Claim]) -> dict[str, UUID]:
    rows, parameters = [], []
    for claim in claims:
        unit = _UNITS.get(BudgetKind(claim.kind))
        at_once = claim.kind == BudgetKind.MESSAGES
        window = "%s" if unit is None else "date_trunc(%s, statement_timestamp(), 'UTC')"
        rows.append(f"(%s, %s, %s, {window}, %s, %s, statement_timestamp(), statement_timestamp())")
        parameters += [new_id(), workspace_id, claim.key, unit or ALWAYS]
        parameters += [claim.amount, 0] if at_once else [0, claim.amount]
    for claim in claims:
        parameters += [claim.key, claim.limit]
    limits = " ".join(["WHEN %s THEN %s::numeric"] * len(claims))
    return dict(_execute(_TAKE.format(rows=", ".join(rows), limits=limits), parameters, returning=True))


def _wait(workspace_id: UUID, claim: Claim) -> float:
    """Seconds until there may be room: soon if only reservations are in the way, else when the window ends."""
    unit = _UNITS.get(BudgetKind(claim.kind))
    if unit is None:
        return 2.0
    parameters = [claim.amount, claim.limit, unit, f"1 {unit}", workspace_id, claim.key, unit]
    [(fits, seconds)] = _execute(_ROOM, parameters, returning=True)
    return 2.0 if fits else max(1.0, float(seconds))


def _execute(sql: str, parameters: Sequence[Any], *, returning: bool = False) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if returning else []
