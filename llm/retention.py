"""How long the interaction log is kept: rows that are older than LLM["LOG_DAYS"] go, and their texts with them.

Budgets lose nothing by it: what they count has rows of its own (llm.counters).
"""

import logging
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from kernel.conf import config
from kernel.ids import first_id
from llm.models import CallStatus, InteractionLog

logger = logging.getLogger(__name__)

#: Rows that one transaction deletes, so that it ends within the statement timeout; and that one run does at most.
_BATCH = 1_000
_MOST = 100_000


def prune() -> int:
    """Delete the rows that are too old, the oldest first; how many went (database work).

    Safe at any time from any number of processes. What is left after many rows is the next run's.
    """
    days = config().llm.log_days
    if days is None:
        return 0
    before, gone = timezone.now() - timedelta(days=days), 0
    while gone < _MOST and (deleted := _delete_some(before)):
        gone += deleted
    if gone:
        logger.info("action=log_pruned rows=%d", gone)
    return gone


@transaction.atomic
def _delete_some(before: datetime) -> int:
    # A run that is under way keeps all its rows: the first one is its lock (llm.ledger).
    under_way = InteractionLog.objects.filter(run_id=OuterRef("run_id"), status=CallStatus.STARTED)
    old = InteractionLog.objects.filter(~Exists(under_way), id__lt=first_id(before)).order_by("id")
    locked = old.select_for_update(skip_locked=True, of=("self",))
    ids = list(locked.values_list("id", flat=True)[:_BATCH])
    return InteractionLog.objects.filter(id__in=ids).delete()[0]
