"""How long models took, and what they failed with: beside llm.spend, over the same rows and groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db.models import Aggregate, Count, F, FloatField, QuerySet, Value

from llm.models import CallStatus, InteractionLog
from llm.spend import GROUPS


class Percentiles(Aggregate):
    """The median, and what 19 of 20 stay below."""

    template = "percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = ArrayField(FloatField())


@dataclass
class Pace:
    """Of one group. Milliseconds, (p50, p95); None without a call that has them."""

    first_token_ms: list[float] | None = None
    latency_ms: list[float] | None = None
    #: Error code → failed calls.
    failures: dict[str, int] = field(default_factory=dict)


def paces(
    rows: "QuerySet[InteractionLog]", *, since: datetime, until: datetime, by: Sequence[str] = ()
) -> dict[tuple[Any, ...], Pace]:
    """By the values of the groups' columns, in the order of `by`; two queries. Answers that were given again are left
    out: no model took any time for them.
    """
    # A group can't have the name of the column that it is about.
    columns = {f"by_{name}": column for group in dict.fromkeys(by) for name, column in GROUPS[group].items()}
    found = rows.filter(created_at__gte=since, created_at__lt=until).exclude(model_name="").order_by()
    # Without a group all rows are one: they have this in common.
    grouped = found.values(all=Value(0), **columns)
    answered = grouped.filter(status=CallStatus.OK).annotate(
        first=Percentiles("first_token_ms"), whole=Percentiles("latency_ms")
    )
    paces = {_key(row, columns): Pace(row["first"], row["whole"]) for row in answered}
    failed = grouped.filter(status=CallStatus.FAILED).annotate(category=F("error_category"))
    for row in failed.annotate(count=Count("id")):
        paces.setdefault(_key(row, columns), Pace()).failures[row["category"] or "internal"] = row["count"]
    return paces


def _key(row: Mapping[str, Any], columns: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in columns)
