"""REST for sessions, history and tokens: `/api/v1/…`, described at `/api/v1/docs`.

A view turns a request into one unit of database work and its result into JSON; rules live in chat.sessions,
chat.turns and chat.replay.
"""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from django.contrib.auth import get_user_model
from django.http import HttpRequest
from ninja import Field as Aliased
from ninja import Query, Router, Schema, Status
from pydantic import AwareDatetime, BaseModel, Field

from accounts import tokens
from accounts.access import Caller
from accounts.rest import caller_of
from chat import answers, branches, replay, sessions, wire
from chat.models import ChatSession
from chat.runtime import Runtime
from kernel import database
from kernel.conf import config
from kernel.errors import Forbidden, Invalid

router = Router(tags=["chat"])
Limit = Annotated[int, Query(ge=1, le=100)]
_BAD_CURSOR = "The cursor is not one that this list gave; start without one."


class SessionIn(BaseModel, extra="forbid"):
    """A new session; without `workspace` it is in the caller's own."""

    # Not a ninja Schema: that takes any JSON value for an object without fields.

    title: str = Field("", max_length=200)
    workspace: UUID | None = None
    #: The name of a workflow of that workspace; with `version` it answers with that one, whichever is active.
    workflow: str = Field("", max_length=255)
    version: int | None = Field(None, ge=1)


class SessionChange(BaseModel, extra="forbid"):
    """What is named is changed. `workflow` null: the default answers; `version` null: the active one does."""

    title: str = Field("", max_length=200)
    is_active: bool = True
    workflow: str | None = Field(None, max_length=255)
    version: int | None = Field(None, ge=1)


class SessionOut(Schema):
    """`workflow` null: the default answers; `version`: the one that the session is pinned to."""

    id: UUID
    workspace: UUID = Aliased(alias="workspace_id")
    title: str
    workflow: str | None
    version: int | None
    is_active: bool
    seq: int
    created_at: AwareDatetime
    updated_at: AwareDatetime

    @staticmethod
    def resolve_workflow(row: ChatSession) -> str | None:
        return row.workflow.name if row.workflow is not None else None

    @staticmethod
    def resolve_version(row: ChatSession) -> int | None:
        return row.workflow.version if row.workflow is not None and row.workflow_pinned else None


class SessionPage(Schema):
    """`next` goes into `cursor` for the following page; null on the last one."""

    sessions: list[SessionOut]
    next: str | None


class MessageOut(Schema):
    """A message, as the `message` frame has it."""

    id: UUID
    role: str
    content: str
    status: str
    order: int
    seq: int
    parent: UUID | None
    client_id: str | None
    error_code: str
    sources: list[dict[str, Any]]
    created_at: AwareDatetime
    updated_at: AwareDatetime
    deleted: bool


class HistoryPage(Schema):
    """Oldest first. With `has_more`, ask again with `before` = the first one's `order`."""

    messages: list[MessageOut]
    has_more: bool


class TokenOut(Schema):
    """A bearer token for `hello` and the Authorization header; `expires_in` in seconds."""

    token: str
    expires_in: float


@router.get("/sessions", response=SessionPage, summary="The caller's sessions, the last used first")
async def list_sessions(
    request: HttpRequest, limit: Limit = 30, cursor: Annotated[str | None, Query(max_length=100)] = None
) -> dict[str, Any]:
    sessions, following = await database.run(_sessions, caller_of(request), limit=limit, cursor=cursor)
    return {"sessions": sessions, "next": following}


@router.post("/sessions", response={201: SessionOut}, summary="Create a session")
async def create_session(request: HttpRequest, body: SessionIn) -> Status[ChatSession]:
    made = await database.run(
        sessions.create_session,
        caller_of(request),
        workspace_id=body.workspace,
        title=body.title,
        workflow=body.workflow,
        version=body.version,
    )
    return Status(201, made)


@router.get("/sessions/{uuid:session_id}", response=SessionOut, summary="One session")
async def get_session(request: HttpRequest, session_id: UUID) -> ChatSession:
    return await database.run(sessions.find_session, caller_of(request), session_id)


@router.patch("/sessions/{uuid:session_id}", response=SessionOut, summary="Change what is named of a session")
async def change_session(request: HttpRequest, session_id: UUID, body: SessionChange) -> ChatSession:
    changes = body.model_dump(exclude_unset=True)
    return await database.run(sessions.change_session, caller_of(request), session_id, changes)


@router.get("/sessions/{uuid:session_id}/messages", response=HistoryPage, summary="A page of a session's history")
async def list_messages(
    request: HttpRequest, session_id: UUID, before: Annotated[int | None, Query(ge=0)] = None, limit: Limit = 50
) -> dict[str, Any]:
    rows, more = await database.run(replay.history, caller_of(request), session_id, before=before, limit=limit)
    return {"messages": [msgspec.to_builtins(wire.message_of(row)) for row in rows], "has_more": more}


@router.delete(
    "/sessions/{uuid:session_id}/messages/{uuid:message_id}",
    response={204: None},
    summary="Empty a message, for good; 409 `still_running` while it is answered",
)
async def delete_message(request: HttpRequest, session_id: UUID, message_id: UUID) -> Status[None]:
    caller, runtime = caller_of(request), Runtime.running()
    if runtime is not None:
        await runtime.runner.delete(caller, session_id, message_id)
    else:  # no socket is here to be told; those elsewhere find it out
        done = await database.run(branches.delete, caller, session_id, message_id)
        if done.outdated is not None:
            await answers.forget(done)
    return Status(204, None)


@router.post("/token", response=TokenOut, summary="A short-lived token for sockets and REST")
async def create_token(request: HttpRequest) -> dict[str, Any]:
    token = await database.run(_mint, caller_of(request))
    return {"token": token, "expires_in": config().chat.token_lifetime}


def _mint(caller: Caller) -> str:
    if caller.by_token:
        raise Forbidden("A token can't make another one; sign in for that.")
    return tokens.mint(get_user_model()._default_manager.get(pk=caller.user_id))


def _sessions(caller: Caller, *, limit: int, cursor: str | None) -> tuple[list[ChatSession], str | None]:
    """A page by (last use, id), newest first: a cursor stays true while sessions come and go."""
    found = ChatSession.objects.visible_to(caller).with_workflow().order_by("-updated_at", "-id")
    if cursor is not None:
        at, last_id = _parse_cursor(cursor)
        found = found.older_than(at, last_id)
    page = list(found[: limit + 1])
    following = f"{page[limit - 1].updated_at.isoformat()}~{page[limit - 1].id}" if len(page) > limit else None
    return page[:limit], following


def _parse_cursor(cursor: str) -> tuple[datetime, UUID]:
    at, _, last_id = cursor.partition("~")
    try:
        # A "+" of the time zone arrives as a space where a client didn't escape it.
        parsed, after = datetime.fromisoformat(at.replace(" ", "+")), UUID(last_id)
    except ValueError as error:
        raise Invalid(_BAD_CURSOR) from error
    if parsed.tzinfo is None:
        raise Invalid(_BAD_CURSOR)
    return parsed, after
