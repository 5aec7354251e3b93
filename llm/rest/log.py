"""REST for the interaction log: every model call with its tokens, times and cost."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Field, Query, Router, Schema
from pydantic import AwareDatetime, BaseModel

from accounts.access import Caller
from accounts.rest import caller_of
from kernel import database
from llm import interactions
from llm.models import CallStatus, InteractionLog

router = Router(tags=["log"])
Limit = Annotated[int, Query(ge=1, le=100)]


class CallOut(Schema):
    """A model call. `cost` is null where the model has no price; times are milliseconds."""

    id: UUID
    workspace: UUID = Field(alias="workspace_id")
    user: int | None = Field(alias="user_id")
    session: UUID | None = Field(alias="session_id")
    workflow: UUID | None = Field(alias="workflow_id")
    prompt: UUID | None = Field(alias="prompt_id")
    run: UUID = Field(alias="run_id")
    call: int
    attempt: int
    status: CallStatus
    error_category: str
    alias: str
    provider: str
    model: str = Field(alias="model_name")
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    usage_estimated: bool
    cost: Decimal | None
    first_token_ms: int | None
    latency_ms: int | None
    tokens_per_second: float | None
    created_at: AwareDatetime
    finished_at: AwareDatetime | None


class WholeCallOut(CallOut):
    """A call with its content, as far as `LLM["LOG_CONTENT"]` keeps it; `steps` are on the first call of a run."""

    parameters: dict[str, Any] = Field(alias="model_parameters")
    price: dict[str, str] | None
    prompt_text: Any
    response_text: str
    steps: list[Any]
    metadata: dict[str, Any]


class LogPage(Schema):
    """Newest first. `next` goes into `before` for the following page; null on the last one."""

    calls: list[CallOut]
    next: UUID | None


class LogQuery(BaseModel):
    """Which calls; without `workspace` those of the caller's own. `from` is part of the time, `to` is not."""

    workspace: UUID | None = None
    status: CallStatus | None = None
    model: str | None = None
    user: int | None = None
    workflow: UUID | None = None
    session: UUID | None = None
    run: UUID | None = None
    since: AwareDatetime | None = Field(None, alias="from")
    until: AwareDatetime | None = Field(None, alias="to")
    before: UUID | None = None
    limit: int = Field(50, ge=1, le=100)


@router.get("/log", response=LogPage, summary="Model calls: all of a workspace for its admins, else the caller's own")
async def list_calls(request: HttpRequest, query: Query[LogQuery]) -> dict[str, Any]:
    calls, following = await database.run(_page, caller_of(request), query)
    return {"calls": calls, "next": following}


@router.get("/log/{uuid:row_id}", response=WholeCallOut, summary="One model call, with its content")
async def get_call(request: HttpRequest, row_id: UUID) -> InteractionLog:
    return await database.run(interactions.one, caller_of(request), row_id)


@router.get("/runs/{uuid:run_id}/calls", response=list[WholeCallOut], summary="All model calls of a run")
async def list_calls_of_run(request: HttpRequest, run_id: UUID) -> list[InteractionLog]:
    return await database.run(interactions.calls_of, caller_of(request), run_id)


def _page(caller: Caller, query: LogQuery) -> tuple[list[InteractionLog], UUID | None]:
    since: datetime | None = query.since
    return interactions.page(
        interactions.rows_for(caller, query.workspace),
        filters={name: getattr(query, name) for name in interactions.FILTERS},
        since=since,
        until=query.until,
        before=query.before,
        limit=query.limit,
    )
