"""What must be true of a session's rows whatever happened, and of what its clients were shown."""

from collections import Counter
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from chat.models import ChatHistory, ChatSession, Run
from kernel import database
from llm import generation
from llm.models import InteractionLog, Workflow
from tests.support.client import Client


async def check(session_id: str, *clients: Client) -> list[dict[str, Any]]:
    """Check the invariants of a session at rest; its rows in order."""
    rows, problems = await database.run(_rows_and_problems, session_id)
    assert not problems, problems
    by_id = {str(row["id"]): row for row in rows}
    for client in clients:
        check_client(client, by_id)
    return rows


def check_client(client: Client, by_id: dict[str, dict[str, Any]]) -> None:
    """What was acked is stored; what is shown as final is what is stored."""
    client.check()
    for frame in client.frames:
        if frame["type"] == "ack" and "message_id" in frame:
            rows = [by_id.get(frame[name]) for name in ("message_id", "answer_id")]
            assert all(rows), f"acked and not stored: {frame}"
            # A regenerated answer is kept under the id of its command; its question has its own.
            assert frame["id"] in [row["client_id"] for row in rows if row]
    for key, shown in client.messages.items():
        stored = by_id[key]
        assert shown["content"] == stored["content"]
        assert (shown["status"], shown["seq"]) == (stored["status"], stored["seq"])
    for key, text in client.texts.items():
        assert by_id[key]["content"].encode().startswith(text)


def _rows_and_problems(session_id: str) -> tuple[list[dict[str, Any]], list[str]]:
    problems = []
    session = ChatSession.objects.get(id=session_id)
    rows = list(ChatHistory.objects.filter(session=session).order_by("order").values())
    runs = list(Run.objects.filter(session=session))
    logs = list(InteractionLog.objects.filter(session=session))
    if [row["order"] for row in rows] != list(range(1, len(rows) + 1)):
        problems.append(f"orders {[row['order'] for row in rows]}")
    if rows and max(row["seq"] for row in rows) > session.seq:
        problems.append("a row's seq is ahead of its session's")
    problems += [f"{row['id']} is still {row['status']}" for row in rows if row["status"] == "pending"]
    problems += [f"run {run.id} is still open" for run in runs if run.status == "pending" or run.finished_at is None]
    status = {row["id"]: row["status"] for row in rows}
    problems += [f"run {run.id} and its row differ" for run in runs if status[run.message_id] != run.status]
    problems += [problem for run in runs for problem in _problems_of_log(run, logs)]
    if {log.run_id for log in logs} != {run.id for run in runs}:
        problems.append("runs and log rows differ")
    for log in logs:
        if log.status == "started" or log.finished_at is None:
            problems.append(f"the log row of run {log.run_id} is still open")
        if log.input_tokens is None or log.output_tokens is None:
            problems.append(f"the log row of run {log.run_id} has no usage")
    return rows, problems


def _problems_of_log(run: Run, logs: list[InteractionLog]) -> list[str]:
    """One row for each call; an attempt whose process died before the next one began leaves an interrupted one."""
    mine = sorted((log for log in logs if log.run_id == run.id), key=lambda log: log.call)
    if [log.call for log in mine] != list(range(len(mine))):
        return [f"calls {[log.call for log in mine]} of run {run.id}"]
    attempts = Counter(log.attempt for log in mine if log.status != "interrupted")
    if len(attempts) > 1:
        return [f"attempts {dict(attempts)} of run {run.id} came to an end"]
    # A run may fail after a call that went well (at a parser, for want of budget); a stop may come between two tries.
    also = {"complete": {"ok"}, "failed": {"ok"}, "stopped": {"failed"}}.get(run.status, set())
    last = mine[-1].status if mine else "missing"
    return [] if last in {run.status, "cached", *also} else [f"run {run.id} is {run.status}, its last call {last}"]


async def log_of(answer_id: str) -> dict[str, Any]:
    """The log row of an answer's last call."""

    def read() -> dict[str, Any]:
        run = Run.objects.get(message_id=UUID(answer_id))
        return InteractionLog.objects.filter(run_id=run.id).order_by("call").values().last() or {}

    return await database.run(read)


async def give_workflow(session_id: str, steps: list[dict[str, Any]]) -> None:
    """Have a session answered by these steps."""

    def write() -> None:
        session = ChatSession.objects.get(id=session_id)
        name = f"of {session_id}"
        version = 1 + Workflow.objects.filter(workspace_id=session.workspace_id, name=name).count()
        # Past the check of a save: the server under test may know other models than this process.
        [session.workflow] = QuerySet(Workflow).bulk_create(
            [Workflow(workspace_id=session.workspace_id, name=name, version=version, workflow_definition=steps)]
        )
        generation.bump(session.workspace_id)
        session.save(update_fields=["workflow"])

    await database.run(write)
