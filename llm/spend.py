"""What was used and spent: sums over the interaction log, grouped as one asks. One query each."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, TruncDate

from kernel.errors import Invalid
from llm.ledger import UNBILLED
from llm.models import CallStatus, InteractionLog

#: A sum reads every row of its time.
MAX_DAYS = 92
#: What spend can be grouped by, and the columns of a group.
GROUPS: dict[str, dict[str, Any]] = {
    "workspace": {"workspace": F("workspace_id")},
    "user": {"user": F("user_id")},
    "workflow": {"workflow": F("workflow__name")},
    "model": {"provider": F("provider"), "model": F("model_name")},
    "alias": {"alias": F("alias")},
    "day": {"day": TruncDate("created_at", tzinfo=UTC)},
}

#: An answer that was given again; also where it was stopped half-way: it cost 0, and not by any price.
_AGAIN = Q(status=CallStatus.CACHED) | Q(price__isnull=True, cost=0)
#: A provider was asked, or may have been: what a process had written when it died doesn't always tell.
_ASKED = (~Q(model_name="") | Q(status=CallStatus.INTERRUPTED)) & ~Q(status=CallStatus.STARTED) & ~_AGAIN
#: Of these the tokens are what we sent, not what the provider counted.
_COUNTED = ~Q(status=CallStatus.FAILED, first_token_ms__isnull=True, error_category__in=UNBILLED)
_FIGURES = {
    "calls": Count("id", filter=_ASKED),
    "failed": Count("id", filter=_ASKED & Q(status=CallStatus.FAILED)),
    "cached": Count("id", filter=_AGAIN),
    "input_tokens": Coalesce(Sum("input_tokens", filter=_COUNTED), 0),
    "cached_input_tokens": Coalesce(Sum("cached_input_tokens"), 0),
    "output_tokens": Coalesce(Sum("output_tokens"), 0),
    # NULL if no call of the group has a price.
    "cost": Sum("cost"),
    "unpriced": Count("id", filter=_ASKED & Q(cost=None)),
}


def spend(
    rows: "QuerySet[InteractionLog]",
    *,
    since: datetime,
    until: datetime,
    by: Sequence[str] = (),
    limit: int = 100,
    offset: int = 0,
) -> list[dict[str, Any]]:
    """Figures of the `rows` (of one workspace, of one person, …) from `since` to before `until`, by group.

    The groups come in the order of `by`; without any there is one. `cost` leaves out the calls that `unpriced` counts.
    Days are those of UTC. Raises Invalid.
    """
    if unknown := [name for name in by if name not in GROUPS]:
        raise Invalid(f"Spend can't be grouped by {unknown[0]!r}; known: {', '.join(GROUPS)}.")
    if not since < until <= since + timedelta(days=MAX_DAYS):
        raise Invalid(f"Spend is summed up over more than nothing and at most {MAX_DAYS} days; mend from and to.")
    # A group or a sum can't have the name of the column that it is about.
    columns = {f"by_{name}": column for group in dict.fromkeys(by) for name, column in GROUPS[group].items()}
    sums = {f"sum_{name}": figure for name, figure in _FIGURES.items()}
    found = rows.filter(created_at__gte=since, created_at__lt=until).order_by()
    if not columns:
        return [_named(found.aggregate(**sums))]
    groups = found.values(**columns).annotate(**sums).order_by(*columns)
    page: Any = groups[offset : offset + limit]
    return [_named(group) for group in page]


def _named(group: dict[str, Any]) -> dict[str, Any]:
    return {name.partition("_")[2]: value for name, value in group.items()}
