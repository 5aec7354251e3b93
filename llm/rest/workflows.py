"""REST for workflows: their versions, which one answers, how it came to that. Running them: llm.rest.runs.

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
from llm.models import Activation, Workflow
from llm.rest.prompts import DiffOut, HistoryPage, NamedIn

router = Router(tags=["workflows"])
Limit = Annotated[int, Query(ge=1, le=100)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
#: A list of steps, or an object with `steps` and options: docs/workflows.md.
Definition = list[dict[str, Any]] | dict[str, Any]


class WorkflowIn(BaseModel, extra="forbid"):
    """A new version of `name`; without `workspace` it is in the caller's own. `note`: why it was made."""

    name: Name
    workflow_definition: Definition
    description: str = Field("", max_length=10_000)
    note: str = Field("", max_length=500)
    activate: bool = True
    workspace: UUID | None = None


class ValidateIn(BaseModel, extra="forbid"):
    workflow_definition: Definition
    workspace: UUID | None = None


class ValidOut(Schema):
    """It is valid; a fault is an error 422 that begins with the path to it."""

    valid: bool


class WorkflowOut(Schema):
    id: UUID
    workspace: UUID = Field(alias="workspace_id")
    name: str
    version: int
    is_active: bool
    description: str
    workflow_definition: Any
    note: str
    created_by: int | None = Field(alias="created_by_id")
    created_at: AwareDatetime
    updated_at: AwareDatetime


class WorkflowPage(Schema):
    """Newest first. `next` goes into `before` for the following page; null on the last one."""

    workflows: list[WorkflowOut]
    next: UUID | None


@router.get("/workflows", response=WorkflowPage, summary="Active versions, or all; of all names, or of one")
async def list_workflows(
    request: HttpRequest,
    *,
    name: Annotated[str | None, Query(max_length=255)] = None,
    include_inactive: bool = False,
    workspace: UUID | None = None,
    limit: Limit = 30,
    before: UUID | None = None,
) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        rows = Workflow.objects.visible_to(caller_of(request))
        if workspace is not None:
            rows = rows.filter(workspace_id=workspace)
        if name is not None:
            rows = rows.filter(name=name)
        if not include_inactive:
            rows = rows.filter(is_active=True)
        page, following = newest_first(rows, limit=limit, before=before)
        return {"workflows": page, "next": following}

    return await database.run(read)


@router.post("/workflows", response={201: WorkflowOut}, summary="Make a version, active unless `activate` is false")
async def create_workflow(request: HttpRequest, body: WorkflowIn) -> Status[Workflow]:
    def write() -> Workflow:
        caller = caller_of(request)
        content = body.model_dump(exclude={"workspace", "name"})
        place = workspace_for(caller, body.workspace, roles=ADMINS)
        return versions.create(Workflow, place.pk, body.name, user_id=caller.user_id, **content)

    return Status(201, await database.run(write))


@router.post("/workflows/validate", response=ValidOut, summary="Check a definition without keeping it")
async def validate(request: HttpRequest, body: ValidateIn) -> dict[str, bool]:
    def check() -> dict[str, bool]:
        place = workspace_for(caller_of(request), body.workspace, roles=READERS)
        # The check of a row that is to be saved, so that both say the same.
        versions.check(Workflow(workspace=place, name="checked", workflow_definition=body.workflow_definition))
        return {"valid": True}

    return await database.run(check)


@router.get("/workflows/schema", response=dict[str, Any], summary="The JSON schema of a definition")
async def get_schema(request: HttpRequest) -> dict[str, Any]:
    from llm import workflows  # noqa: PLC0415  brings LangChain, which start-up must not

    return workflows.json_schema()


@router.get("/workflows/history", response=HistoryPage, summary="Who made, activated or rolled back what, and when")
async def list_history(
    request: HttpRequest,
    name: Annotated[str, Query(max_length=255)],
    workspace: UUID | None = None,
    limit: Limit = 30,
    before: UUID | None = None,
) -> dict[str, Any]:
    def read() -> dict[str, Any]:
        place = workspace_for(caller_of(request), workspace, roles=READERS)
        rows: Any = versions.history(Workflow, place.pk, name)
        page: tuple[list[Activation], UUID | None] = newest_first(rows, limit=limit, before=before)
        return {"history": page[0], "next": page[1]}

    return await database.run(read)


@router.post("/workflows/roll-back", response=WorkflowOut, summary="Have the version answer that was active before")
async def roll_back(request: HttpRequest, body: NamedIn) -> Workflow:
    def write() -> Workflow:
        caller = caller_of(request)
        place = workspace_for(caller, body.workspace, roles=ADMINS)
        return versions.roll_back(Workflow, place.pk, body.name, user_id=caller.user_id)

    return await database.run(write)


@router.get("/workflows/{uuid:workflow_id}", response=WorkflowOut, summary="One version")
async def get_workflow(request: HttpRequest, workflow_id: UUID) -> Workflow:
    return await database.run(_find, caller_of(request), workflow_id)


@router.post("/workflows/{uuid:workflow_id}/activate", response=WorkflowOut, summary="Have this version answer")
async def activate(request: HttpRequest, workflow_id: UUID) -> Workflow:
    def write() -> Workflow:
        row = _find_to_write(caller_of(request), workflow_id)
        versions.activate(row, user_id=caller_of(request).user_id)
        return row

    return await database.run(write)


@router.post("/workflows/{uuid:workflow_id}/deactivate", response=WorkflowOut, summary="Have no version answer")
async def deactivate(request: HttpRequest, workflow_id: UUID) -> Workflow:
    def write() -> Workflow:
        row = _find_to_write(caller_of(request), workflow_id)
        versions.deactivate_row(row, user_id=caller_of(request).user_id)
        return row

    return await database.run(write)


@router.get(
    "/workflows/{uuid:workflow_id}/diff", response=DiffOut, summary="What changed from another version to this one"
)
async def get_diff(request: HttpRequest, workflow_id: UUID, since: UUID) -> dict[str, str]:
    def read() -> dict[str, str]:
        caller = caller_of(request)
        return {"diff": versions.diff(_find(caller, since), _find(caller, workflow_id))}

    return await database.run(read)


def _find(caller: Caller, workflow_id: UUID) -> Workflow:
    row: Workflow | None = Workflow.objects.visible_to(caller).filter(pk=workflow_id).first()
    if row is None:
        raise NotFound("There is no such workflow in your workspaces.")
    return row


def _find_to_write(caller: Caller, workflow_id: UUID) -> Workflow:
    row = _find(caller, workflow_id)
    workspace_for(caller, row.workspace_id, roles=ADMINS)
    return row
