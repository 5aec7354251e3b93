"""`manage.py llm stats`: what was called, what it cost, how long it took and what failed."""

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.utils import timezone

from llm import latency, spend
from llm.latency import Pace
from llm.models import InteractionLog
from llm.terminal import places
from llm.terminal.paper import Paper

_FIGURES = (
    "calls", "cached", "failed", "failures", "input_tokens", "output_tokens", "cost", "unpriced", "first_token_ms_p50",
    "first_token_ms_p95", "latency_ms_p50", "latency_ms_p95",
)  # fmt: skip
#: Groups that are shown.
_MOST = 1000


def show_statistics(paper: Paper, options: dict[str, Any]) -> None:
    if not 1 <= options["days"] <= spend.MAX_DAYS:
        raise CommandError(f"--days takes 1 to {spend.MAX_DAYS}.")
    by = [name for name in options["by"].split(",") if name]
    workspace = places.workspace_id(options["workspace"])
    rows = InteractionLog.objects.all() if workspace is None else InteractionLog.objects.filter(workspace_id=workspace)
    until = timezone.now()
    since = until - timedelta(days=options["days"])
    groups = spend.spend(rows, since=since, until=until, by=by, limit=_MOST)
    columns = [name for group in dict.fromkeys(by) for name in spend.GROUPS[group]]
    paces = latency.paces(rows, since=since, until=until, by=by)
    found = [group | _of(paces.get(tuple(group[name] for name in columns), Pace())) for group in groups]
    if "user" in columns:
        _name_users(found)
    paper.rows(found, (*columns, *_FIGURES), nothing="No model was called in that time.")


def _of(pace: Pace) -> dict[str, Any]:
    first, whole = pace.first_token_ms or (None, None), pace.latency_ms or (None, None)
    return {
        "failures": pace.failures,
        "first_token_ms_p50": _rounded(first[0]),
        "first_token_ms_p95": _rounded(first[1]),
        "latency_ms_p50": _rounded(whole[0]),
        "latency_ms_p95": _rounded(whole[1]),
    }


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)


def _name_users(rows: list[dict[str, Any]]) -> None:
    names = get_user_model().objects.in_bulk({row["user"] for row in rows if row["user"] is not None})
    for row in rows:
        row["user"] = names[row["user"]].get_username() if row["user"] in names else None
