"""What the LLM platform does on a schedule."""

from celery import shared_task

from llm import counters, exact_cache, sweeping
from llm.models import CachedAnswer


@shared_task
def prune_cached_answers() -> None:
    """Delete answers that have expired, and the oldest ones of a workspace that has too many."""
    exact_cache.prune(CachedAnswer)


@shared_task
def prune_budget_counters() -> None:
    """Forget windows of budgets that are over."""
    counters.prune()


@shared_task
def end_overdue_runs() -> None:
    """End the runs outside of chats whose process died."""
    sweeping.sweep()
