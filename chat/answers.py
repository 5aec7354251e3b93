"""The answer to a message as a stream of events, pure of transport: the socket, the tests and other protocols read
the same.

recall memory → run the session's workflow (retrieve, prompt, model, parse …) → events.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

from chat.turns import Turn
from kernel import database
from kernel.conf import config
from llm.events import Event
from llm.models import Workflow
from memory import exchange
from memory.exchange import Said


async def answer(turn: Turn) -> AsyncGenerator[Event]:
    """Yield the events of answering `turn`; ends normally or with a typed error (kernel.errors)."""
    # Workflows build LangChain objects: imported with the first answer, or by the server's warm-up, not at start-up.
    from llm import workflows  # noqa: PLC0415

    definition = await _definition(turn)
    inputs = workflows.WorkflowInput(
        workspace_id=turn.workspace_id,
        user_id=turn.user_id,
        session_id=turn.session_id,
        question=turn.question,
        before_order=turn.question_order,
    )
    async with aclosing(workflows.stream(definition or workflows.DEFAULT_WORKFLOW, inputs)) as events:
        async for event in events:
            yield event


async def remember(turn: Turn, *, status: str, text: str) -> None:
    """Tell the memory that the turn's workflow reads from how it ended; a no-op where the rows are the memory."""
    said = [
        Said(order=turn.question_order, role="USER", content=turn.question),
        Said(order=turn.question_order + 1, role="ASSISTANT", content=text, status=status, id=turn.answer_id),
    ]
    await exchange.remember(turn.session_id, said, definition=await _definition(turn))


async def _definition(turn: Turn) -> Sequence[Mapping[str, Any]] | None:
    if turn.workflow_id is not None:
        found = await database.run(_read_definition, turn.workspace_id, turn.workflow_id)
        if found is not None:
            return found
    return config().chat.default_workflow


def _read_definition(workspace_id: UUID, workflow_id: UUID) -> list[dict[str, Any]] | None:
    found = Workflow.objects.filter(workspace_id=workspace_id, id=workflow_id)
    return found.values_list("workflow_definition", flat=True).first()
