"""Memory in the admin: what is still to be made, and what was made of which session. Without the texts of summaries:
they tell what was said."""

from django.contrib import admin

from kernel.admin_pages import Made, OfSession, OfWorkspace, Open, ReadOnly, as_json, reference
from memory.models import MemoryJob, ProcessLease, Summary


@admin.register(Summary)
class SummaryAdmin(ReadOnly):
    list_display = ("id", reference("session"), "version", "through_order", "model", "in_workspace", "created_at")
    list_select_related = ("workspace",)
    list_filter = (OfWorkspace, OfSession, Made)
    search_fields = ("id", "session_id", "workspace_id")
    search_help_text = "The ID of a summary, a session or a workspace."
    unread = ("text",)
    shown = (
        "id",
        "workspace",
        reference("session"),
        "version",
        reference("through"),
        "through_order",
        "model",
        "prompt_hash",
        "created_at",
    )


@admin.register(MemoryJob)
class MemoryJobAdmin(ReadOnly):
    list_display = (
        "id",
        reference("session"),
        "open",
        "attempts",
        "owner",
        "lease_expires_at",
        "error_code",
        "in_workspace",
        "updated_at",
    )
    list_select_related = ("workspace",)
    list_filter = (Open, OfWorkspace, OfSession, Made)
    search_fields = ("id", "session_id", "workspace_id")
    search_help_text = "The ID of a job, a session or a workspace."
    shown = (
        "id",
        "workspace",
        reference("session"),
        as_json("needs"),
        "wanted",
        "fence",
        "attempts",
        "open",
        "owner",
        "lease_expires_at",
        "sent_at",
        "error_code",
        "created_at",
        "updated_at",
    )


@admin.register(ProcessLease)
class ProcessLeaseAdmin(ReadOnly):
    list_display = ("name", "host", "pid", "expires_at")
    search_fields = ("name",)
    shown = ("name", "host", "pid", "expires_at")
