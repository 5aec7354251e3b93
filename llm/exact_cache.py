"""The answer cache `exact`: the same request again, to the letter. Its rows, and how their number is bounded."""

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Model, Window
from django.db.models.functions import Now, RowNumber

from kernel import database
from kernel.caches import Tally
from llm.answer_cache import Answer, Request, may_be_kept
from llm.models import CachedAnswer

#: Answers that a workspace keeps in each cache, the newest ones.
MAX_ANSWERS = 10_000
#: Rows that one statement deletes, so that it ends within the statement timeout.
_BATCH = 2_000


class ExactCache:
    """Made with a workflow's CacheOptions as a dict."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._ttl = timedelta(seconds=config["ttl"])

    async def find(self, request: Request) -> Answer | None:
        found = await database.run(_find, request)
        _tally.count(hit=found is not None)
        return found

    async def keep(self, request: Request, answer: Answer) -> None:
        await database.run(_keep, request, answer, self._ttl)


_tally = Tally("exact_answers")


def _find(request: Request) -> Answer | None:
    rows = CachedAnswer.objects.filter(
        workspace_id=request.workspace_id, key__in=list(request.keys), expires_at__gt=Now()
    )
    row = rows.order_by("-updated_at").first()
    if row is None:
        return None
    return Answer(
        target=request.keys[row.key], text=row.text, input_tokens=row.input_tokens, output_tokens=row.output_tokens
    )


def _keep(request: Request, answer: Answer, ttl: timedelta) -> None:
    row = CachedAnswer(
        workspace_id=request.workspace_id,
        key=request.digest(answer.target),
        workflow_id=request.workflow_id,
        text=answer.text,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        document_ids=list(request.document_ids),
        expires_at=Now() + ttl,
    )
    with transaction.atomic():
        if may_be_kept(request):
            write(row)


def write(row: CachedAnswer) -> None:
    """Write a row, or renew the one that a parallel request has written. Database work."""
    CachedAnswer.objects.bulk_create(
        [row],
        update_conflicts=True,
        unique_fields=["workspace", "key"],
        update_fields=["text", "input_tokens", "output_tokens", "document_ids", "expires_at", "updated_at"],
    )


def prune(table: type[Model]) -> int:
    """Delete what has expired, and of each workspace all but the newest rows; how many. Database work."""
    rows = table._default_manager
    place = Window(RowNumber(), partition_by=F("workspace_id"), order_by=F("updated_at").desc())
    surplus = rows.annotate(place=place).filter(place__gt=MAX_ANSWERS)
    gone = 0
    for unwanted in (rows.filter(expires_at__lte=Now()), surplus):
        while ids := list(unwanted.values_list("pk", flat=True)[:_BATCH]):
            gone += rows.filter(pk__in=ids).delete()[0]
    return gone
