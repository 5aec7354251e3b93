"""What the LLM platform does on a schedule, and how a task of any layer runs async code."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from celery import shared_task

from kernel import redis
from llm import aliases, counters, exact_cache, retention, sweeping
from llm.models import CachedAnswer

P = ParamSpec("P")
T = TypeVar("T")


def run_async(work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work(*args, **kwargs)` to its end in an event loop of its own; for Celery tasks and commands.

    The loop's models, HTTP connections and Redis client end with it: they would be of no use to the next task's loop.
    The database's threads belong to the process and stay. Raises what `work` raises.
    """

    async def whole() -> T:
        try:
            return await work(*args, **kwargs)
        finally:
            try:
                await aliases.close()
            finally:
                await redis.close()

    return asyncio.run(whole())


@shared_task
def prune_cached_answers() -> None:
    """Delete answers that have expired, and the oldest ones of a workspace that has too many."""
    exact_cache.prune(CachedAnswer)


@shared_task
def prune_budget_counters() -> None:
    """Forget windows of budgets that are over."""
    counters.prune()


@shared_task
def prune_interaction_log() -> None:
    """Delete rows of the interaction log that are older than LLM["LOG_DAYS"]."""
    retention.prune()


@shared_task
def end_overdue_runs() -> None:
    """End the runs outside of chats whose process died."""
    sweeping.sweep()
