"""What the vector store does in the background, and on a schedule."""

from uuid import UUID

from celery import shared_task

from kernel import jobs
from llm import exact_cache
from llm.tasks import run_async
from vectorstore import cached_embeddings, claims, garbage, indexing, ingestion, reembedding, refreshing
from vectorstore.models import SemanticAnswer

#: Seconds that building an index may take: millions of vectors take hours.
_LONGEST_BUILD = 12 * 3600

#: Seconds of work on a document, below those of a task: what is left is a task of its own.
_LONGEST_INGEST = 480.0
#: Words that may wait in the broker before a sweep adds none: its memory is the chats' too.
_MOST_WORDS = 200


@shared_task
def ingest_document(job_id: str | UUID) -> None:
    """Read, cut and embed a document. Harmless when it comes twice."""
    run_async(ingestion.work, UUID(str(job_id)), longest=_LONGEST_INGEST)


@shared_task
def sweep_ingest_jobs() -> None:
    """Tell the broker of jobs that it does not know of: it was away or lost them, or their worker died.

    Which of them it knows can't be asked, so it is told of many again while workers are busy: never of more than fit.
    """
    words = jobs.waiting()
    for job_id in claims.overdue(most=0 if words is None else _MOST_WORDS - words):
        if not jobs.tell("vectorstore.tasks.ingest_document", job_id):
            claims.untold(job_id)


@shared_task
def prune_semantic_answers() -> None:
    """Delete answers that have expired, and the oldest ones of a workspace that has too many."""
    exact_cache.prune(SemanticAnswer)


@shared_task
def prune_cached_embeddings() -> None:
    """Delete vectors that were not used for long, and the longest unused ones of a workspace that has too many."""
    cached_embeddings.prune()


@shared_task
def collect_garbage() -> None:
    """Remove vectors from backends outside PostgreSQL whose chunks are gone."""
    run_async(garbage.collect)


@shared_task
def refresh_metadata() -> None:
    """Tell stores outside PostgreSQL of documents' metadata that changed."""
    run_async(refreshing.refresh)


@shared_task(time_limit=_LONGEST_BUILD)
def reembed(set_id: str, after: str | None = None) -> None:
    """Fill a set that is to take another's place, for a while; what is left is a task of its own."""
    outcome, reached = run_async(reembedding.work, UUID(set_id), UUID(after) if after else None)
    if outcome == "unfinished":
        jobs.tell("vectorstore.tasks.reembed", set_id, *([str(reached)] if reached else []))


@shared_task(time_limit=_LONGEST_BUILD)
def build_index(set_id: str) -> None:
    """Build the approximate index of a large set. Harmless when it comes twice."""
    run_async(indexing.work, UUID(set_id))


@shared_task
def tend_indexes() -> None:
    """Drop indexes that nothing needs, and tell of large sets that have none."""
    indexing.drop_unneeded()
    for set_id in indexing.overdue():
        jobs.tell("vectorstore.tasks.build_index", str(set_id))


@shared_task
def tend_reembedding() -> None:
    """Go on with sets that nobody fills, and remove what was replaced."""
    reembedding.clear_retired()
    for set_id in reembedding.overdue():
        jobs.tell("vectorstore.tasks.reembed", str(set_id))
