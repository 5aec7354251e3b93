"""Conversations in the admin: that they are, not what is said in them.

A conversation is its person's alone. So no page has the text of a message, nor the title of a session, which quotes the
first one.
"""

from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Q
from django.http import HttpRequest

from chat.models import ChatHistory, ChatSession, MessageStatus, Run
from kernel.admin_pages import Made, OfSession, OfWorkspace, Open, ReadOnly, holdings, reference


@admin.register(ChatSession)
class ChatSessionAdmin(ReadOnly):
    """What a session holds goes with its row, in the same transaction; its copy in Redis follows (memory.gone)."""

    list_display = (
        "id",
        "user",
        "in_workspace",
        reference("workflow"),
        "is_active",
        "last_order",
        "created_at",
        "updated_at",
    )
    list_select_related = ("user", "workspace")
    list_filter = (OfWorkspace, Made)
    search_fields = ("id", "user_id", "workspace_id", f"user__{get_user_model().USERNAME_FIELD}")
    search_help_text = "An ID, of a person or a workspace too, or a person's name."
    unread = ("title",)
    shown = (
        "id",
        "workspace",
        "user",
        reference("workflow"),
        "workflow_pinned",
        "is_active",
        "seq",
        "last_order",
        "head_id",
        "memory_epoch",
        "created_at",
        "updated_at",
        holdings("session", owner=ChatSession),
    )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("chat.delete_chatsession"))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        # Django's own would read every message, and ask for the right to delete each kind of row by itself.
        rows = list(objs)
        messages = ChatHistory.objects.filter(session__in=rows).count()
        return [str(row) for row in rows], {"sessions": len(rows), "messages": messages}, set(), []


@admin.register(ChatHistory)
class ChatHistoryAdmin(ReadOnly):
    list_display = (
        "id",
        "role",
        "status",
        "error_code",
        "order",
        reference("session"),
        "token_count",
        "is_deleted",
        "in_workspace",
        "created_at",
    )
    list_select_related = ("workspace",)
    list_filter = (OfWorkspace, OfSession, Made)
    filters_within = {"session": ("role", "status")}
    search_fields = ("id", "session_id", "workspace_id")
    searches_within = {"session": ("client_id",)}
    search_help_text = "The ID of a message, a session or a workspace."
    unread = ("content", "sources")
    shown = (
        "id",
        "workspace",
        reference("session"),
        reference("parent"),
        "role",
        "status",
        "error_code",
        "order",
        "seq",
        "accepted_seq",
        "client_id",
        "token_count",
        "is_deleted",
        "created_at",
        "updated_at",
    )


class OpenRuns(Open):
    condition = Q(status=MessageStatus.PENDING)


@admin.register(Run)
class RunAdmin(ReadOnly):
    list_display = (
        "id",
        "status",
        "owner",
        "attempt",
        "lease_expires_at",
        "stop_requested",
        reference("session"),
        "in_workspace",
        "created_at",
        "finished_at",
    )
    list_select_related = ("workspace",)
    list_filter = (OpenRuns, OfWorkspace, OfSession, Made)
    search_fields = ("id", "message_id", "session_id", "workspace_id")
    search_help_text = "The ID of a run, its answer, a session or a workspace."
    shown = (
        "id",
        "workspace",
        reference("session"),
        reference("question"),
        reference("message"),
        "status",
        "owner",
        "attempt",
        "lease_expires_at",
        "stop_requested",
        "created_at",
        "finished_at",
    )
