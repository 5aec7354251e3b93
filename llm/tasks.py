"""What the LLM platform does on a schedule."""

from celery import shared_task

from llm import exact_cache
from llm.models import CachedAnswer


@shared_task
def prune_cached_answers() -> None:
    """Delete answers that have expired, and the oldest ones of a workspace that has too many."""
    exact_cache.prune(CachedAnswer)
