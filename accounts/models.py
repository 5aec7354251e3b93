"""Who works where: every row of Django Chain belongs to one workspace, and people reach it by membership."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.db import models

from kernel.ids import new_id

if TYPE_CHECKING:
    from accounts.access import Caller


class Row(models.Model):
    """A row of ours: UUIDv7 id and times."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class Workspace(Row):
    """A tenant: nothing is seen or found across workspaces."""

    name = models.CharField(max_length=200)
    #: The person whose own workspace this is; NULL for a shared one.
    personal_of = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, null=True, blank=True, related_name="personal_workspace"
    )

    class Meta:
        # For what begins with something, which no index in a language's order can tell.
        indexes = [models.Index(fields=["name"], opclasses=["varchar_pattern_ops"], name="workspace_by_name")]

    def __str__(self) -> str:
        return self.name


class Role(models.TextChoices):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


#: Who may add to a workspace.
WRITERS = frozenset({Role.OWNER, Role.ADMIN, Role.MEMBER})
#: Who may configure it: prompts, workflows, models, budgets.
ADMINS = frozenset({Role.OWNER, Role.ADMIN})
#: Who may look into it.
READERS = frozenset(Role)


class Membership(Row):
    """A person's place in a workspace."""

    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role, default=Role.MEMBER)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["workspace", "user"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} ({self.role}) in {self.workspace}"


class WorkspaceQuerySet(models.QuerySet[Any]):
    """Rows looked up through the caller, so that a missing right and a missing row are one case."""

    def visible_to(self, caller: Caller) -> Self:
        """The rows of the caller's workspaces."""
        return self.filter(workspace__memberships__user_id=caller.user_id)


class WorkspaceRow(Row):
    """A row that belongs to a workspace."""

    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="+")

    objects = WorkspaceQuerySet.as_manager()

    class Meta:
        abstract = True
