"""What Celery does for memory. The rows of memory.jobs are the truth: a task may be lost, or come twice."""

from uuid import UUID

from celery import shared_task

from kernel.jobs import tell
from llm.tasks import run_async
from memory import jobs, keeping


@shared_task
def remember(session_id: str) -> None:
    """Keep up a session's summaries and vectors."""
    run_async(keeping.work, UUID(session_id))


@shared_task
def sweep_memory_jobs() -> None:
    """Tell the broker again of work that nobody has begun."""
    for session_id in jobs.overdue():
        tell(jobs.REMEMBER, str(session_id))
