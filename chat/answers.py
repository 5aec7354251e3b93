"""The answer to a message as a stream of events, pure of transport: the socket, the tests and other protocols read
the same.

recall memory → run the session's workflow (retrieve, prompt, model, parse …) → events.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from chat import streams
from chat.branches import Deleted
from chat.turns import Turn
from kernel.conf import config
from llm import configuration
from llm.configuration import Configuration, WorkflowVersion
from llm.events import Event
from llm.journal import RunJournal
from llm.state import RunContext, WorkflowInput
from memory import exchange
from memory import jobs as memory_jobs
from memory.exchange import Said
from memory.jobs import Needs

logger = logging.getLogger(__name__)


async def answer(turn: Turn, journal: RunJournal, trace: list[dict[str, Any]]) -> AsyncGenerator[Event]:
    """Yield the events of answering `turn`; ends normally or with a typed error (kernel.errors).

    The calls are told to `journal`, the steps' times to `trace`.
    """
    # Workflows build LangChain objects: imported with the first answer, or by the server's warm-up, not at start-up.
    from llm import workflows  # noqa: PLC0415

    holding = await configuration.known(turn.workspace_id, turn.generation)
    workflow = await _workflow(turn, holding)
    journal.under(holding, workflow_id=None if workflow is None else workflow.id)
    run = RunContext(holding, journal, run_id=turn.run_id, workflow=workflow, first_call=turn.first_call, trace=trace)
    inputs = WorkflowInput(
        workspace_id=turn.workspace_id,
        user_id=turn.user_id,
        session_id=turn.session_id,
        question=turn.question,
        before_order=turn.question_order,
        leaf=turn.leaf,
        epoch=turn.epoch,
        as_of=turn.as_of,
    )
    definition = _definition(workflow) or workflows.DEFAULT_WORKFLOW
    async with aclosing(workflows.stream(definition, inputs, run=run)) as events:
        async for event in events:
            yield event


async def remember(turn: Turn, *, status: str, text: str) -> None:
    """Tell the memory that the turn's workflow reads from how it ended; a no-op where the rows are the memory."""
    holding = await configuration.known(turn.workspace_id, turn.generation)
    said = [
        Said(order=turn.question_order, role="USER", content=turn.question, id=turn.question_id, parent=turn.leaf),
        Said(
            order=turn.answer_order,
            role="ASSISTANT",
            content=text,
            status=status,
            id=turn.answer_id,
            parent=turn.question_id,
        ),
    ]
    definition = await _whole(turn, holding)
    await exchange.remember(turn.session_id, said, definition=definition, epoch=turn.epoch)


async def forget(deleted: Deleted) -> None:
    """Drop what copies say of a message that was just deleted, before that is acknowledged. Never fails."""
    row = deleted.row
    work = [exchange.forget(row.session_id, epoch=deleted.outdated), streams.forget(row.id, deleted.attempts)]
    for failure in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(failure, Exception):
            # What is left expires, and nothing that is sent from now on recalls it.
            logger.warning("action=forget_later session=%s error=%s", row.session_id, type(failure).__name__)


async def needs(turn: Turn) -> Needs:
    """What the workflow's memory asks a worker to make after the turn; false if nothing."""
    holding = await configuration.known(turn.workspace_id, turn.generation)
    return memory_jobs.needs_of(await _whole(turn, holding))


async def tell_worker(turn: Turn) -> None:
    """There is work for a worker, by the rows of the turn's end; a word that is lost costs some time."""
    # Celery is loaded by servers that have something to queue.
    from kernel.jobs import tell  # noqa: PLC0415

    await asyncio.to_thread(tell, memory_jobs.REMEMBER, str(turn.session_id))


async def _workflow(turn: Turn, holding: Configuration) -> WorkflowVersion | None:
    """The version that answers: the session's own row if it is pinned to it, else the active one of its name."""
    if turn.workflow_id is None:
        return None
    own = await holding.workflow(row_id=turn.workflow_id)
    if own is None or turn.workflow_pinned:
        return own
    return await holding.workflow(own.name) or own


async def _whole(turn: Turn, holding: Configuration) -> Any:
    """The definition of what answers; with those of the workflows that it calls, where it calls any, behind it."""
    definition = _definition(await _workflow(turn, holding))
    found, seen, called = [definition], set(), [definition]
    while called:
        for step in exchange.steps_of("workflow", called.pop()):
            name, version = str(step.get("name") or ""), step.get("version")
            inner = None if (name, version) in seen else await holding.workflow(name, version)
            seen.add((name, version))
            if inner is not None:
                found.append(inner.definition)
                called.append(inner.definition)
    return definition if len(found) == 1 else found


def _definition(workflow: WorkflowVersion | None) -> Any:
    return config().chat.default_workflow if workflow is None else workflow.definition
