"""REST that runs workflows: the answer as one JSON object, or as a stream of server-sent events while it comes.

A run ends with its client's connection. What runs, and who writes its end: llm.execution.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import Router, Schema
from pydantic import BaseModel, Field

from accounts.rest import caller_of
from kernel import database
from kernel.errors import NotFound
from llm import interactions, runs
from llm.events import Event, Output, Sources, Step, Text
from llm.execution import Execution, executions
from llm.rest.log import CallOut

router = Router(tags=["workflows"])
#: Seconds of silence after which a stream says that it lives; proxies end what is silent for longer.
HEARTBEAT = 15.0
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class RunIn(BaseModel, extra="forbid"):
    """Without `version` the active one runs; `session`: whose messages are its history."""

    question: str = ""
    variables: dict[Annotated[str, Field(max_length=100)], Any] = Field({}, max_length=100)
    version: int | None = Field(None, ge=1)
    session: UUID | None = None
    workspace: UUID | None = None
    stream: bool = False


class UsageOut(Schema):
    """The sums over the run's model calls; `cost` is null if a model has no price."""

    calls: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    estimated: bool
    cost: str | None


class StepOut(Schema):
    path: str
    type: str
    state: str
    ms: int


class RunOut(Schema):
    run_id: UUID
    status: str
    text: str
    output: Any
    sources: list[dict[str, Any]]
    usage: UsageOut
    steps: list[StepOut]


class RunRowsOut(Schema):
    """A run as the log has it: its calls in their order, and the steps of its last write."""

    run_id: UUID
    status: str
    usage: UsageOut
    steps: list[StepOut]
    calls: list[CallOut]


@router.post("/workflows/{name}/run", response=RunOut, summary="Run a workflow; with `stream`, as server-sent events")
async def run_workflow(request: HttpRequest, name: str, body: RunIn) -> dict[str, Any] | StreamingHttpResponse:
    ask = await database.run(runs.ask_for, caller_of(request), name, **body.model_dump(exclude={"stream"}))
    run = await executions.begin(ask)
    try:
        if not body.stream:
            return await _whole(run)
        # What fails before it says anything fails as HTTP does.
        if await run.more(HEARTBEAT) and run.empty and run.error is not None:
            raise run.error
    except BaseException:
        run.stop()
        raise
    headers = _HEADERS | {"X-Run-Id": str(run.id)}
    return StreamingHttpResponse(_stream(run), content_type="text/event-stream", headers=headers)


@router.get("/runs/{uuid:run_id}", response=RunRowsOut, summary="A run's model calls, as the log has them")
async def get_run(request: HttpRequest, run_id: UUID) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        rows = interactions.calls_of(caller_of(request), run_id)
        return {
            "run_id": run_id,
            "status": rows[-1].status,
            "usage": runs.usage_of(run_id),
            "steps": rows[0].steps,
            "calls": rows,
        }

    return await database.run(read)


@router.delete("/runs/{uuid:run_id}", response={204: None}, summary="Stop a run of yours that this server runs")
async def stop_run(request: HttpRequest, run_id: UUID) -> HttpResponse:
    run = executions.find(run_id)
    if run is None or run.user_id != caller_of(request).user_id:
        raise NotFound("No such run of yours goes on in this server process.")
    run.stop()
    return HttpResponse(status=204)


async def _whole(run: Execution) -> dict[str, Any]:
    output: Any = None
    sources: list[dict[str, Any]] = []
    async with aclosing(run.events()) as events:
        async for event in events:
            if isinstance(event, Output):
                output = event.value
            elif isinstance(event, Sources):
                sources = list(event.hits)
    return _ended(run) | {"text": run.text, "output": output, "sources": sources, "steps": run.trace}


def _ended(run: Execution) -> dict[str, Any]:
    return {"run_id": run.id, "status": str(run.status), "usage": msgspec.to_builtins(run.usage)}


async def _stream(run: Execution) -> AsyncGenerator[bytes, None]:
    number = 0
    try:
        while True:
            event = run.take()
            if event is None:
                if run.status is not None:
                    break
                if not await run.more(HEARTBEAT):
                    yield b": still here\n\n"
                continue
            told = _told(event)
            if told is not None:
                number += 1
                yield _frame(number, *told)
        if run.failure is not None:
            number += 1
            yield _frame(number, "error", run.failure)
        yield _frame(number + 1, "done", _ended(run))
    finally:
        run.stop()


def _told(event: Event) -> tuple[str, dict[str, Any]] | None:
    """What clients see of an event: its name and its data."""
    match event:
        case Text():
            return "text", {"text": event.text}
        case Step():
            return "step", {"name": event.name, "state": event.state, "detail": event.detail}
        case Sources():
            return "sources", {"hits": event.hits}
        case Output():
            return "output", {"value": event.value}
    return None


def _frame(number: int, name: str, data: dict[str, Any]) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), msgspec.json.encode(data))
