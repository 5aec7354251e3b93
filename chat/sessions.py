"""Sessions as rows: found, made and changed by their own people. Units of database work (`kernel.database.run`)."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import transaction

from accounts.access import Caller, workspace_for
from chat.models import ChatSession
from kernel.errors import Invalid, NotFound
from kernel.text import storable
from llm.models import Workflow


def find_session(caller: Caller, session_id: UUID) -> ChatSession:
    """The caller's session. Raises NotFound, also for another's."""
    session: ChatSession | None = ChatSession.objects.visible_to(caller).with_workflow().filter(id=session_id).first()
    if session is None:
        raise NotFound("There is no such session among yours.")
    return session


def create_session(
    caller: Caller,
    *,
    workspace_id: UUID | None = None,
    title: str = "",
    workflow: str = "",
    version: int | None = None,
) -> ChatSession:
    """A new, empty session of the caller's, answered by a workflow of its workspace if one is named.

    With a `version` it is pinned to that one. Raises Forbidden for a workspace the caller can't write in, and NotFound
    that names the workflow.
    """
    place = workspace_for(caller, workspace_id)
    return ChatSession.objects.create(
        workspace=place,
        user_id=caller.user_id,
        title=storable(title)[:200],
        workflow=_workflow_row(place.pk, workflow, version),
        workflow_pinned=version is not None,
    )


def change_session(caller: Caller, session_id: UUID, changes: Mapping[str, Any]) -> ChatSession:
    """Change `title`, `is_active`, `workflow` (a name; None: the default) and `version` (None: the active one).

    Raises NotFound for a session the caller can't write in, and for a workflow, by its name.
    """
    with transaction.atomic():
        rows = ChatSession.objects.writable_by(caller).with_workflow().filter(id=session_id)
        session: ChatSession | None = rows.select_for_update(of=("self",)).first()
        if session is None:
            raise NotFound("There is no such session among those you may write in.")
        if "title" in changes:
            session.title = storable(changes["title"])[:200]
        if "is_active" in changes:
            session.is_active = changes["is_active"]
        if "workflow" in changes or "version" in changes:
            current = session.workflow.name if session.workflow is not None else None
            version = changes.get("version")
            session.workflow = _workflow_row(session.workspace_id, changes.get("workflow", current) or "", version)
            session.workflow_pinned = version is not None
        session.save(update_fields=["title", "is_active", "workflow", "workflow_pinned", "updated_at"])
    return session


def _workflow_row(workspace_id: UUID, name: str, version: int | None) -> Workflow | None:
    if not name:
        if version is not None:
            raise Invalid("A version is of a workflow: name it, too.")
        return None
    rows = Workflow.objects.filter(workspace_id=workspace_id, name=storable(name))
    rows = rows.filter(is_active=True) if version is None else rows.filter(version=version)
    row: Workflow | None = rows.defer("workflow_definition").first()
    if row is None:
        what = "active version" if version is None else f"version {version}"
        raise NotFound(f"There is no {what} of a workflow {name[:255]!r} in this workspace.")
    return row
