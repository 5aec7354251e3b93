"""What the vector store does on a schedule."""

from celery import shared_task

from llm import exact_cache
from vectorstore.models import SemanticAnswer


@shared_task
def prune_semantic_answers() -> None:
    """Delete answers that have expired, and the oldest ones of a workspace that has too many."""
    exact_cache.prune(SemanticAnswer)
