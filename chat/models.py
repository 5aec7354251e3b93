"""Conversations as rows. PostgreSQL is the truth: whatever was acknowledged stands here.

`seq` counts the durable events of a session. Every event stamps the row that it changed, so "what changed since N" is
one indexed query. `order` is a message's place in its session and never changes.

A conversation is a tree: a question's parent is the message that it follows, an answer's parent is its question, and
neither ever changes. The active branch is the path from the newest message up.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Self
from uuid import UUID

from django.conf import settings
from django.db import models

from accounts.models import WRITERS, WorkspaceQuerySet, WorkspaceRow

if TYPE_CHECKING:
    from accounts.access import Caller
    from memory.history import SessionHistory


class ChatSessionQuerySet(WorkspaceQuerySet):
    def visible_to(self, caller: Caller) -> Self:
        """The caller's own sessions, in workspaces the caller is still a member of."""
        return super().visible_to(caller).filter(user_id=caller.user_id)

    def writable_by(self, caller: Caller) -> Self:
        """The caller's own sessions in workspaces where the caller may write."""
        # One filter call, so that both conditions are about the same membership: the caller's.
        return self.filter(
            user_id=caller.user_id,
            workspace__memberships__user_id=caller.user_id,
            workspace__memberships__role__in=WRITERS,
        )

    def with_workflow(self) -> Self:
        """With the name and version of what answers, in the same query."""
        return self.select_related("workflow").defer("workflow__workflow_definition")

    def older_than(self, at: datetime, last_id: UUID) -> Self:
        """What follows (`at`, `last_id`) in the order of last use."""
        return self.filter(models.Q(updated_at__lt=at) | models.Q(updated_at=at, id__lt=last_id))


class ChatSession(WorkspaceRow):
    """A conversation."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="chat_sessions")
    title = models.CharField(max_length=200, blank=True)
    workflow = models.ForeignKey("llm.Workflow", models.SET_NULL, null=True, blank=True, related_name="+")
    #: It answers with the very version of `workflow`; else with whichever of that name is active.
    workflow_pinned = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    #: The last durable event, and the last message's place.
    seq = models.PositiveBigIntegerField(default=0)
    last_order = models.PositiveIntegerField(default=0)
    #: The newest message, where the active branch ends. A plain id: messages go only with their session.
    head_id = models.UUIDField(null=True, blank=True, editable=False)
    #: How often the past has changed: what was copied of the conversation before that is out of date.
    memory_epoch = models.PositiveIntegerField(default=0, editable=False)

    if TYPE_CHECKING:
        #: Its workspace's, where a query asks for it beside the row.
        generation: int | None

    objects = ChatSessionQuerySet.as_manager()  # type: ignore[misc]  # narrower than the base's, by design

    class Meta:
        indexes = [models.Index(fields=["user", "-updated_at", "-id"], name="chatsession_recent")]

    def __str__(self) -> str:
        # Not its title, which quotes the first question: whoever shows the name of a row shows this.
        return str(self.id)

    @property
    def memory(self) -> SessionHistory:
        """What was said, as LangChain's chat history."""
        # Imports LangChain: not with the models.
        from memory.history import SessionHistory  # noqa: PLC0415

        return SessionHistory(self.id)


class MessageRole(models.TextChoices):
    USER = "USER"
    ASSISTANT = "ASSISTANT"
    SYSTEM = "SYSTEM"


class MessageStatus(models.TextChoices):
    """`pending` while its run is under way; the others are final."""

    PENDING = "pending"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class ChatHistory(WorkspaceRow):
    """A message."""

    session = models.ForeignKey(ChatSession, models.CASCADE, related_name="messages")
    parent = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="+")
    role = models.CharField(max_length=10, choices=MessageRole)
    content = models.TextField(blank=True)
    status = models.CharField(max_length=12, choices=MessageStatus, default=MessageStatus.COMPLETE)
    #: Why a run failed: a code of the protocol.
    error_code = models.CharField(max_length=64, blank=True)
    order = models.PositiveIntegerField()
    seq = models.PositiveBigIntegerField()
    #: The seq it was accepted with: what its first ack said, and so every ack of a repeat.
    accepted_seq = models.PositiveBigIntegerField()
    #: The sender's own id for it, or for the answer that it asked for anew; what makes a repeated command harmless.
    client_id = models.CharField(max_length=64, null=True, blank=True)
    #: The passages an answer used, as the `sources` frame has them.
    sources = models.JSONField(default=list, blank=True)
    token_count = models.PositiveIntegerField(null=True, blank=True)
    is_deleted = models.BooleanField(default=False)

    class Meta:
        verbose_name = "message"
        constraints = [
            models.UniqueConstraint(fields=["session", "client_id"], name="message_client_id_once"),
            models.UniqueConstraint(fields=["session", "order"], name="message_order_once"),
            models.UniqueConstraint(fields=["session", "seq"], name="message_seq_once"),
        ]

    def __str__(self) -> str:
        return f"{self.role} #{self.order}"


class Run(WorkspaceRow):
    """The work of answering one message: who does it (lease), which try it is, how it ended.

    Every write of an attempt is fenced by its number: a process that lost its lease can't write any more.
    """

    session = models.ForeignKey(ChatSession, models.CASCADE, related_name="runs")
    question = models.ForeignKey(ChatHistory, models.CASCADE, related_name="+")
    #: The assistant's row that this run fills.
    message = models.OneToOneField(ChatHistory, models.CASCADE, related_name="run")
    status = models.CharField(max_length=12, choices=MessageStatus, default=MessageStatus.PENDING)
    owner = models.CharField(max_length=64)
    attempt = models.PositiveSmallIntegerField(default=1)
    lease_expires_at = models.DateTimeField()
    stop_requested = models.BooleanField(default=False)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["lease_expires_at"], condition=models.Q(status="pending"), name="run_open_by_lease"),
            models.Index(fields=["session", "id"], condition=models.Q(status="pending"), name="run_open_by_session"),
            models.Index(fields=["owner"], condition=models.Q(status="pending"), name="run_open_by_owner"),
        ]

    def __str__(self) -> str:
        return f"run of {self.message_id}, attempt {self.attempt}"
