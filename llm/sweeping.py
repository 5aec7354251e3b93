"""Ending the runs outside of chats whose process died: nobody else would write their end.

In a chat another process takes a dead one's runs over (chat.runner); these have no lease, but a time to end by. A run
whose session was deleted is nobody's any more: it ends here, too.
"""

import logging
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from kernel.conf import config
from llm import ledger, usage
from llm.journal import Ending, RunRef
from llm.models import CallStatus, InteractionLog

logger = logging.getLogger(__name__)

#: Runs that one sweep ends; the next one is a minute away.
_BATCH = 200


def sweep() -> int:
    """End the overdue runs as `interrupted`, and give back what budgets held for them; how many (database work).

    Safe at any time from any number of processes: each run is ended by one of them.
    """
    overdue = InteractionLog.objects.filter(_overdue()).order_by("closes_by")
    found = list(overdue.values_list("run_id", flat=True)[:_BATCH])
    ended = sum(_end(run_id) for run_id in dict.fromkeys(found))
    if ended:
        logger.info("action=overdue_runs_ended count=%d", ended)
    return ended


def _overdue() -> Q:
    # Only rows of chats have no time to end by. A process that still works on one writes its end by itself.
    worked_on = timedelta(seconds=2 * config().llm.workflow_timeout)
    orphaned = Q(closes_by=None, session=None, updated_at__lt=Now() - worked_on)
    return Q(status=CallStatus.STARTED) & (Q(closes_by__lt=Now()) | orphaned)


def _end(run_id: UUID) -> bool:
    with transaction.atomic():
        rows = InteractionLog.objects.filter(run_id=run_id)
        # The first row is the run's lock (llm.ledger); who holds it ends the run.
        if not rows.filter(call=0).select_for_update(skip_locked=True, of=("self",)).exists():
            return False
        last = rows.filter(_overdue()).order_by("-call").first()
        if last is None:
            return False
        ledger.close_run(_ending(last))
    return True


def _ending(last: InteractionLog) -> Ending:
    run = RunRef(
        run_id=last.run_id,
        workspace_id=last.workspace_id,
        user_id=last.user_id,
        session_id=last.session_id,
        workflow_id=last.workflow_id,
        attempt=last.attempt,
    )
    asked = usage.estimate(last.prompt_text, 0) if isinstance(last.prompt_text, list) else usage.NO_USAGE
    return Ending(run=run, status=CallStatus.INTERRUPTED, leftover_usage=asked, unknown=True)
