"""The LLM platform in the admin: prices and budgets are set here, everything else is looked at.

Versions are made by llm.versions, models by llm.model_configs, the log and the counts by runs.
"""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from kernel.admin_pages import NOTHING, Made, OfSession, OfWorkspace, Page, ReadOnly, as_json, reference, rules
from llm import budget_rows, prices
from llm.models import (
    Activation,
    Budget,
    BudgetCounter,
    CachedAnswer,
    InteractionLog,
    ModelConfig,
    ModelPrice,
    Prompt,
    PromptSplit,
    Reservation,
    Workflow,
)

#: Who may read what the log kept of prompts and answers.
READ_TEXTS = "llm.read_interactionlog_texts"
_OF_A_VERSION = ("id", "workspace", "name", "version", "is_active", "note", "created_by", "created_at")


class VersionAdmin(ReadOnly):
    list_display = ("__str__", "is_active", "in_workspace", "created_by", "created_at")
    list_select_related = ("workspace", "created_by")
    list_filter = (OfWorkspace, Made)
    filters_within = {"workspace": ("is_active",)}
    search_fields = ("id", "workspace_id")
    searches_within = {"workspace": ("name__startswith",)}


@admin.register(Prompt)
class PromptAdmin(VersionAdmin):
    unread = ("prompt_template",)
    shown = (
        *_OF_A_VERSION,
        as_json("prompt_template"),
        as_json("input_variables"),
        as_json("optional_variables"),
    )


@admin.register(Workflow)
class WorkflowAdmin(VersionAdmin):
    unread = ("workflow_definition",)
    shown = (*_OF_A_VERSION, "description", as_json("workflow_definition"))


@admin.register(PromptSplit)
class PromptSplitAdmin(ReadOnly):
    list_display = ("name", "shares", "in_workspace", "updated_at")
    list_select_related = ("workspace",)
    list_filter = (OfWorkspace, Made)
    search_fields = ("id", "workspace_id")
    shown = ("id", "workspace", "name", "shares", "created_at", "updated_at")


@admin.register(Activation)
class ActivationAdmin(ReadOnly):
    list_display = ("__str__", "in_workspace", "user", "created_at")
    list_select_related = ("workspace", "user")
    list_filter = (OfWorkspace, Made)
    filters_within = {"workspace": ("kind",)}
    search_fields = ("id", "workspace_id")
    searches_within = {"workspace": ("name",)}
    shown = ("id", "workspace", "kind", "name", "version", "action", "detail", "user", "created_at")


@admin.register(ModelConfig)
class ModelConfigAdmin(ReadOnly):
    """Who may write a key may not read it, and the one who looks here neither."""

    list_display = ("alias", "in_workspace", "provider", "model_name", "key", "is_active", "updated_by", "updated_at")
    list_select_related = ("workspace", "updated_by")
    list_filter = (OfWorkspace, Made)
    search_fields = ("id", "workspace_id")
    searches_within = {"workspace": ("alias",)}
    unread = ("encrypted_key",)
    shown = (
        "id",
        "workspace",
        "alias",
        "provider",
        "model_name",
        "base_url",
        "key",
        as_json("options"),
        as_json("bounds"),
        as_json("route"),
        "is_active",
        "updated_by",
        "created_at",
        "updated_at",
    )

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Any]":
        stored = ExpressionWrapper(~Q(encrypted_key=""), output_field=BooleanField())
        rows: QuerySet[Any] = super().get_queryset(request).annotate(has_key=stored)
        return rows

    @admin.display(description="key")
    def key(self, row: Any) -> str:
        return "stored" if row.has_key else f"from {row.key_variable}" if row.key_variable else NOTHING


class PriceForm(forms.ModelForm):  # type: ignore[type-arg]  # it takes none while it runs
    def clean(self) -> None:
        super().clean()
        for name in ("input_price", "output_price", "cached_input_price"):
            with rules(self, name):
                prices.check_amount(name, self.cleaned_data.get(name))


@admin.register(ModelPrice)
class ModelPriceAdmin(Page):
    """A price is never changed: another one begins."""

    form = PriceForm
    list_display = ("model_name", "provider", "input_price", "output_price", "cached_input_price", "valid_from")
    list_filter = (Made,)
    # Every process reads the whole table: it is small.
    search_fields = ("id", "model_name")
    search_help_text = "An ID, or a model as its provider calls it."
    shown = ("provider", "model_name", "input_price", "output_price", "cached_input_price", "valid_from")

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"valid_from": timezone.now()} | super().get_changeform_initial_data(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class BudgetForm(forms.ModelForm):  # type: ignore[type-arg]  # it takes none while it runs
    def clean_limit(self) -> Any:
        limit = self.cleaned_data["limit"]
        if limit <= 0:
            raise forms.ValidationError("A limit is more than 0.")
        return limit

    def clean(self) -> None:
        super().clean()
        workspace, user = self.cleaned_data.get("workspace"), self.cleaned_data.get("user")
        if workspace is not None:
            with rules(self):
                budget_rows.check_new(workspace, user and user.pk)


@admin.register(Budget)
class BudgetAdmin(Page):
    """As over REST: of a budget that stands, the limit changes, and whether it holds."""

    form = BudgetForm
    list_display = ("__str__", "is_active", "user", "in_workspace", "updated_at")
    list_select_related = ("workspace", "user")
    list_filter = (OfWorkspace, Made)
    search_fields = ("id", "workspace_id")
    shown = ("workspace", "kind", "limit", "per", "user", "is_active")
    autocomplete_fields = ("workspace",)
    raw_id_fields = ("user",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return () if obj is None else ("workspace", "kind", "per", "user")


@admin.register(BudgetCounter)
class BudgetCounterAdmin(ReadOnly):
    list_display = ("key", "window", "used", "reserved", "in_workspace", "updated_at")
    list_select_related = ("workspace",)
    list_filter = (OfWorkspace, Made)
    search_fields = ("id", "workspace_id")
    searches_within = {"workspace": ("key",)}
    shown = ("id", "workspace", "key", "window", "used", "reserved", "created_at", "updated_at")


@admin.register(Reservation)
class ReservationAdmin(ReadOnly):
    list_display = ("id", "amount", "run_id", "call", reference("counter"), "in_workspace", "created_at")
    list_select_related = ("workspace",)
    list_filter = (OfWorkspace, Made)
    search_fields = ("id", "run_id", "counter_id", "workspace_id")
    shown = ("id", "workspace", "counter", "run_id", "call", "amount", "created_at")


@admin.register(InteractionLog)
class InteractionLogAdmin(ReadOnly):
    """The texts are as private as the conversations: they are for those who have a permission of its own."""

    list_display = (
        "id",
        "status",
        "alias",
        "model_name",
        "input_tokens",
        "output_tokens",
        "cost",
        "latency_ms",
        reference("session"),
        "in_workspace",
        "created_at",
    )
    list_select_related = ("workspace",)
    list_filter = (OfWorkspace, OfSession, Made)
    filters_within = {"workspace": ("status",)}
    search_fields = ("id", "run_id", "session_id", "workspace_id")
    searches_within = {"workspace": ("user_id", "workflow_id", "model_name")}
    search_help_text = "An ID, of a run, a session or a workspace too. In a workspace also of a person, or a model."
    unread = ("prompt_text", "response_text", "steps")
    shown = (
        "id",
        "workspace",
        "user",
        reference("session"),
        reference("workflow"),
        reference("prompt"),
        "run_id",
        "call",
        "attempt",
        "status",
        "error_category",
        "alias",
        "provider",
        "model_name",
        as_json("model_parameters"),
        "input_tokens",
        "output_tokens",
        "cached_input_tokens",
        "usage_estimated",
        "cost",
        as_json("price"),
        "first_token_ms",
        "latency_ms",
        "tokens_per_second",
        as_json("steps"),
        as_json("metadata"),
        "closes_by",
        "created_at",
        "finished_at",
    )
    _texts = (as_json("prompt_text"), "response_text")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        may_read = request.user.has_perm(READ_TEXTS)
        return (*super().get_fields(request, obj), *(self._texts if may_read else ()))

    def get_ordering(self, request: HttpRequest) -> Any:
        # As the indexes of a workspace's rows are; those of all workspaces have none by time but their ids.
        return ("-created_at", "-pk") if request.GET.get("workspace") else super().get_ordering(request)


@admin.register(CachedAnswer)
class CachedAnswerAdmin(ReadOnly):
    """Without the answers: they quote conversations and documents."""

    list_display = (
        "key",
        reference("workflow"),
        "input_tokens",
        "output_tokens",
        "expires_at",
        "in_workspace",
        "created_at",
    )
    list_select_related = ("workspace",)
    list_filter = (OfWorkspace, Made)
    search_fields = ("id", "workspace_id")
    searches_within = {"workspace": ("key",)}
    unread = ("text", "document_ids")
    shown = (
        "id",
        "workspace",
        "key",
        reference("workflow"),
        "input_tokens",
        "output_tokens",
        "expires_at",
        "created_at",
    )
