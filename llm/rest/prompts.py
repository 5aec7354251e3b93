"""REST for prompts: their versions, which one answers, how it came to that, and what one looks like filled in.

Every member of a workspace reads; owners and admins write. Rules live in llm.versions.
"""

from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router, Schema, Status
from pydantic import AwareDatetime, BaseModel, Field

from accounts.access import Caller, workspace_for
from accounts.models import ADMINS, READERS
from accounts.rest import caller_of, newest_first
from kernel import database
from kernel.errors import NotFound
from llm import versions
from llm.models import Activation, Prompt, PromptSplit

router = Router(tags=["prompts"])
Limit = Annotated[int, Query(ge=1, le=100)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Variables = Annotated[list[str], Field(max_length=100)]


class PromptIn(BaseModel, extra="forbid"):
    """A new version of `name`; without `workspace` it is in the caller's own. `note`: why it was made."""

    name: Name
    prompt_template: dict[str, Any]
    input_variables: Variables = []
    optional_variables: Variables = []
    note: str = Field("", max_length=500)
    activate: bool = True
    workspace: UUID | None = None


class NamedIn(BaseModel, extra="forbid"):
    name: Name
    workspace: UUID | None = None


class SplitIn(NamedIn):
    """Version → percent, 100 together; `{}` ends the split."""

    shares: dict[int, Annotated[int, Field(strict=True)]]


class RenderIn(BaseModel, extra="forbid"):
    """A value for each variable; `history` and other placeholders: a list of `{"role", "content"}`."""

    values: dict[str, Any] = {}


class PromptOut(Schema):
    id: UUID
    workspace: UUID = Field(alias="workspace_id")
    name: str
    version: int
    is_active: bool
    prompt_template: dict[str, Any]
    input_variables: list[str]
    optional_variables: list[str]
    note: str
    created_by: int | None = Field(alias="created_by_id")
    created_at: AwareDatetime
    updated_at: AwareDatetime


class PromptPage(Schema):
    """Newest first. `next` goes into `before` for the following page; null on the last one."""

    prompts: list[PromptOut]
    next: UUID | None


class ActivationOut(Schema):
    """`detail`: the shares of a split."""

    id: UUID
    action: str
    version: int | None
    user: str | None
    detail: dict[str, Any]
    created_at: AwareDatetime

    @staticmethod
    def resolve_user(row: Activation) -> str | None:
        return row.user.get_username() if row.user is not None else None


class HistoryPage(Schema):
    history: list[ActivationOut]
    next: UUID | None


class SplitOut(Schema):
    name: str
    shares: dict[str, int]


class DiffOut(Schema):
    """A unified diff of the two versions' content as JSON with sorted keys; empty if they are the same."""

    diff: str


class MessageOut(Schema):
    role: str
    content: str


class RenderOut(Schema):
    messages: list[MessageOut]


@router.get("/prompts", response=PromptPage, summary="Active versions, or all; of all names, or of one")
async def list_prompts(
    request: HttpRequest,
    *,
    name: Annotated[str | None, Query(max_length=255)] = None,
    include_inactive: bool = False,
    workspace: UUID | None = None,
    limit: Limit = 30,
    before: UUID | None = None,
) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        rows = Prompt.objects.visible_to(caller_of(request))
        if workspace is not None:
            rows = rows.filter(workspace_id=workspace)
        if name is not None:
            rows = rows.filter(name=name)
        if not include_inactive:
            rows = rows.filter(is_active=True)
        page, following = newest_first(rows, limit=limit, before=before)
        return {"prompts": page, "next": following}

    return await database.run(read)


@router.post("/prompts", response={201: PromptOut}, summary="Make a version, active unless `activate` is false")
async def create_prompt(request: HttpRequest, body: PromptIn) -> Status[Prompt]:
    def write() -> Prompt:
        caller = caller_of(request)
        content = body.model_dump(exclude={"workspace", "name"})
        place = workspace_for(caller, body.workspace, roles=ADMINS)
        return versions.create(Prompt, place.pk, body.name, user_id=caller.user_id, **content)

    return Status(201, await database.run(write))


@router.get(
    "/prompts/history", response=HistoryPage, summary="Who made, activated, rolled back or split what, and when"
)
async def list_history(
    request: HttpRequest,
    name: Annotated[str, Query(max_length=255)],
    workspace: UUID | None = None,
    limit: Limit = 30,
    before: UUID | None = None,
) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        place = workspace_for(caller_of(request), workspace, roles=READERS)
        page, following = newest_first(versions.history(Prompt, place.pk, name), limit=limit, before=before)
        return {"history": page, "next": following}

    return await database.run(read)


@router.post("/prompts/roll-back", response=PromptOut, summary="Have the version answer that was active before")
async def roll_back(request: HttpRequest, body: NamedIn) -> Prompt:
    def write() -> Prompt:
        caller = caller_of(request)
        place = workspace_for(caller, body.workspace, roles=ADMINS)
        return versions.roll_back(Prompt, place.pk, body.name, user_id=caller.user_id)

    return await database.run(write)


@router.get("/prompts/split", response=SplitOut, summary="The shares of a name's versions; empty: there is no split")
async def get_split(
    request: HttpRequest, name: Annotated[str, Query(max_length=255)], workspace: UUID | None = None
) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        place = workspace_for(caller_of(request), workspace, roles=READERS)
        row = PromptSplit.objects.filter(workspace=place, name=name).first()
        return {"name": name, "shares": row.shares if row else {}}

    return await database.run(read)


@router.put("/prompts/split", response=SplitOut, summary="Have versions answer side by side, each for its percent")
async def put_split(request: HttpRequest, body: SplitIn) -> dict[str, Any]:
    def write() -> dict[str, Any]:
        caller = caller_of(request)
        place = workspace_for(caller, body.workspace, roles=ADMINS)
        versions.split(place.pk, body.name, body.shares, user_id=caller.user_id)
        return {"name": body.name, "shares": {str(version): share for version, share in body.shares.items()}}

    return await database.run(write)


@router.get("/prompts/{uuid:prompt_id}", response=PromptOut, summary="One version")
async def get_prompt(request: HttpRequest, prompt_id: UUID) -> Prompt:
    return await database.run(_find, caller_of(request), prompt_id)


@router.post("/prompts/{uuid:prompt_id}/activate", response=PromptOut, summary="Have this version answer alone")
async def activate(request: HttpRequest, prompt_id: UUID) -> Prompt:
    def write() -> Prompt:
        row = _find_to_write(caller_of(request), prompt_id)
        row.activate(caller_of(request).user_id)
        return row

    return await database.run(write)


@router.post("/prompts/{uuid:prompt_id}/deactivate", response=PromptOut, summary="Have no version answer")
async def deactivate(request: HttpRequest, prompt_id: UUID) -> Prompt:
    def write() -> Prompt:
        row = _find_to_write(caller_of(request), prompt_id)
        row.deactivate(caller_of(request).user_id)
        return row

    return await database.run(write)


@router.get("/prompts/{uuid:prompt_id}/diff", response=DiffOut, summary="What changed from another version to this one")
async def get_diff(request: HttpRequest, prompt_id: UUID, since: UUID) -> dict[str, str]:
    def read() -> dict[str, str]:
        caller = caller_of(request)
        return {"diff": versions.diff(_find(caller, since), _find(caller, prompt_id))}

    return await database.run(read)


@router.post("/prompts/{uuid:prompt_id}/render", response=RenderOut, summary="The messages with these values")
async def render(request: HttpRequest, prompt_id: UUID, body: RenderIn) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        messages = _find(caller_of(request), prompt_id).render(body.values)
        roles = {"human": "user", "ai": "assistant"}
        return {
            "messages": [
                {"role": roles.get(message.type, message.type), "content": str(message.text)} for message in messages
            ]
        }

    return await database.run(read)


def _find(caller: Caller, prompt_id: UUID) -> Prompt:
    row: Prompt | None = Prompt.objects.visible_to(caller).filter(pk=prompt_id).first()
    if row is None:
        raise NotFound("There is no such prompt in your workspaces.")
    return row


def _find_to_write(caller: Caller, prompt_id: UUID) -> Prompt:
    row = _find(caller, prompt_id)
    workspace_for(caller, row.workspace_id, roles=ADMINS)
    return row
