"""Collections and documents in the admin: who may read them, and how far they are. Without the documents' texts, which
their collections' readers alone may read.

Vectors, chunks and what they are looked up by have no pages: nobody could read them, and a document tells how many.
"""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from kernel.admin_pages import Made, OfCollection, OfWorkspace, Open, Page, ReadOnly, holdings, reference, rules
from kernel.errors import ChainError
from kernel.redaction import redact
from vectorstore import collections, rows
from vectorstore.models import (
    Collection,
    CollectionMember,
    Document,
    Garbage,
    IngestJob,
    SemanticAnswer,
    StaleMetadata,
    VectorSet,
)
from vectorstore.scope import Scope


class CollectionForm(forms.ModelForm):  # type: ignore[type-arg]  # it takes none while it runs
    def clean_name(self) -> str:
        try:
            name = collections.name_of(self.cleaned_data["name"])
        except ChainError as error:
            raise forms.ValidationError(error.message) from error
        # Django doesn't look by itself: the workspace, which a name belongs to, is no field of the form.
        beside = Collection.objects.filter(workspace_id=self.instance.workspace_id, name=name)
        if beside.exclude(pk=self.instance.pk).exists():
            raise forms.ValidationError("There is a collection of that name already; choose another.")
        return name


@admin.register(Collection)
class CollectionAdmin(Page):
    """A collection is made with the vectors' model, and deleted in parts: by the people of its workspace, over REST."""

    form = CollectionForm
    list_display = ("name", "access", "language", "in_workspace", "created_at")
    list_select_related = ("workspace",)
    list_filter = (OfWorkspace, Made)
    search_fields = ("id", "workspace_id")
    searches_within = {"workspace": ("name__startswith",)}
    _facts = ("id", "workspace", "language", "created_at", "updated_at", holdings("collection", owner=Collection))
    shown = ("name", "description", "access", *_facts)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self._facts

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Its name is taken away, and would come back.
        going = obj is not None and collections.is_being_deleted(obj)
        return super().has_change_permission(request, obj) and not going

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        # Only what was changed here: its people may change the rest meanwhile.
        obj.save(update_fields=[*form.changed_data, "updated_at"])


class MemberForm(forms.ModelForm):  # type: ignore[type-arg]  # it takes none while it runs
    def clean(self) -> None:
        super().clean()
        collection, user = self.cleaned_data.get("collection"), self.cleaned_data.get("user")
        if collection is not None and user is not None:
            with rules(self):
                collections.check_admissible(collection, user.pk)


@admin.register(CollectionMember)
class CollectionMemberAdmin(Page):
    form = MemberForm
    list_display = ("id", "user", "can_write", "collection", "created_at")
    list_select_related = ("user", "collection")
    list_filter = (OfCollection, Made)
    search_fields = ("id", "collection_id", "user_id")
    search_help_text = "The ID of a person or a collection."
    shown = ("collection", "user", "can_write")
    raw_id_fields = ("collection", "user")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return () if obj is None else ("collection", "user")


@admin.register(VectorSet)
class VectorSetAdmin(ReadOnly):
    list_display = (
        "id",
        "collection",
        "backend",
        "embedding_model",
        "dimension",
        "state",
        "index",
        "index_rows",
        "in_workspace",
        "updated_at",
    )
    list_select_related = ("collection", "workspace")
    list_filter = ("state", OfWorkspace, OfCollection, Made)
    search_fields = ("id", "collection_id", "workspace_id")
    search_help_text = "The ID of a set, a collection or a workspace."
    shown = (
        "id",
        "workspace",
        "collection",
        "backend",
        "embedding_model",
        "dimension",
        "state",
        "owner",
        "lease_expires_at",
        "reason",
        "index",
        "index_type",
        "index_rows",
        "index_attempts",
        "index_owner",
        "index_due_at",
        "created_at",
        "updated_at",
    )


@admin.register(Document)
class DocumentAdmin(ReadOnly):
    list_display = ("title", "where", "state", "error_code", "chunk_count", "size", "collection", "in_workspace", "id")
    list_select_related = ("collection", "workspace")
    list_filter = (OfWorkspace, OfCollection, Made)
    filters_within = {"collection": ("state",)}
    search_fields = ("id", "collection_id", "workspace_id")
    searches_within = {"collection": ("source",)}
    search_help_text = "The ID of a document, a collection or a workspace; in a collection also a whole source."
    unread = ("text", "metadata")
    shown = (
        "id",
        "workspace",
        "collection",
        "title",
        "where",
        "content_type",
        "size",
        "state",
        "done",
        "total",
        "error_code",
        "reason",
        "chunk_count",
        "dated_at",
        "indexed_at",
        "created_at",
        "updated_at",
    )

    @admin.display(description="source")
    def where(self, row: Any) -> str:
        # It may be an address with a signature in it.
        return redact(row.source)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("vectorstore.delete_document"))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        # Django's own would read every passage, and ask for the right to delete each kind of row by itself.
        documents = list(objs)
        passages = sum(row.chunk_count for row in documents)
        return [str(row) for row in documents], {"documents": len(documents), "passages": passages}, set(), []

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        scope = Scope(obj.workspace_id)
        with scope.wall():
            rows.delete_documents(scope, [obj.pk])


@admin.register(IngestJob)
class IngestJobAdmin(ReadOnly):
    list_display = (
        "id",
        reference("document"),
        "open",
        "attempts",
        "owner",
        "lease_expires_at",
        "in_workspace",
        "updated_at",
    )
    list_select_related = ("workspace",)
    list_filter = (Open, OfWorkspace, Made)
    search_fields = ("id", "document_id", "workspace_id")
    search_help_text = "The ID of a job, a document or a workspace."
    unread = ("content", "url", "metadata")
    shown = (
        "id",
        "workspace",
        reference("document"),
        "content_type",
        "fence",
        "attempts",
        "open",
        "owner",
        "lease_expires_at",
        "sent_at",
        "requested_by",
        "created_at",
        "updated_at",
    )


@admin.register(Garbage)
class GarbageAdmin(ReadOnly):
    list_display = ("id", "backend", "set_id", "lease_expires_at", "created_at")
    list_filter = (Made,)
    search_fields = ("id",)
    unread = ("chunk_ids",)
    shown = ("id", "backend", "set_id", "lease_expires_at", "created_at")


@admin.register(StaleMetadata)
class StaleMetadataAdmin(ReadOnly):
    list_display = ("id", reference("vector_set"), reference("document"), "lease_expires_at", "created_at")
    list_filter = (Made,)
    search_fields = ("id", "vector_set_id", "document_id")
    search_help_text = "The ID of a row, a set or a document."
    shown = ("id", reference("vector_set"), reference("document"), "lease_expires_at", "created_at")


@admin.register(SemanticAnswer)
class SemanticAnswerAdmin(ReadOnly):
    """Without the answers: they quote conversations and documents."""

    list_display = (
        "id",
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
    unread = ("text", "embedding", "document_ids")
    shown = (
        "id",
        "workspace",
        reference("workflow"),
        "scope",
        "input_tokens",
        "output_tokens",
        "expires_at",
        "created_at",
    )
