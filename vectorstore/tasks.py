"""What the vector store does in the background, and on a schedule."""

from uuid import UUID

from celery import shared_task

from kernel import jobs
from llm import exact_cache
from llm.tasks import run_async
from vectorstore import cached_embeddings, claims, ingestion
from vectorstore.models import SemanticAnswer


@shared_task
def ingest_document(job_id: str | UUID) -> None:
    """Read, cut and embed a document. Harmless when it comes twice."""
    run_async(ingestion.work, UUID(str(job_id)))


@shared_task
def sweep_ingest_jobs() -> None:
    """Tell the broker of jobs that it does not know of: it was away or lost them, or their worker died."""
    for job_id in claims.overdue():
        jobs.tell("vectorstore.tasks.ingest_document", job_id)


@shared_task
def prune_semantic_answers() -> None:
    """Delete answers that have expired, and the oldest ones of a workspace that has too many."""
    exact_cache.prune(SemanticAnswer)


@shared_task
def prune_cached_embeddings() -> None:
    """Delete vectors that were not used for long, and the longest unused ones of a workspace that has too many."""
    cached_embeddings.prune()
