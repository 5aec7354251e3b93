"""Workspaces and their members in the admin: where shared workspaces are made, and people let in."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.http import HttpRequest

from accounts.models import Membership, Workspace
from kernel.admin_pages import Made, OfWorkspace, Page, holdings

_USERNAME = get_user_model().USERNAME_FIELD


@admin.register(Workspace)
class WorkspaceAdmin(Page):
    """One is deleted from code alone: what it holds may be more than a request can delete, and lie in other stores."""

    list_display = ("name", "id", "personal_of", "created_at")
    list_select_related = ("personal_of",)
    list_filter = (Made,)
    search_fields = ("id", "name__startswith", f"personal_of__{_USERNAME}")
    search_help_text = "An ID, how the name begins, or the name of the person whose own it is."
    _facts = ("id", "personal_of", "created_at", "updated_at", holdings("workspace", owner=Workspace))
    shown = ("name", *_facts)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("name",) if obj is None else self.shown

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self._facts

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class MembershipForm(forms.ModelForm):  # type: ignore[type-arg]  # it takes none while it runs
    def clean(self) -> None:
        super().clean()
        workspace, user = self.cleaned_data.get("workspace"), self.cleaned_data.get("user")
        if workspace is None or user is None or workspace.personal_of_id in {None, user.pk}:
            return
        # Whoever may let people in could let themselves in, and read a person's own documents and log.
        raise forms.ValidationError("That is a person's own workspace; let people into a shared one.")


@admin.register(Membership)
class MembershipAdmin(Page):
    """A person stays the owner of their own workspace, and nobody else is let in there, or given another role."""

    form = MembershipForm
    list_display = ("user", "role", "in_workspace", "created_at")
    list_select_related = ("user", "workspace")
    list_filter = (OfWorkspace, Made)
    search_fields = ("id", "workspace_id", "user_id", f"user__{_USERNAME}")
    search_help_text = "An ID, of a person or a workspace too, or a person's name."
    shown = ("workspace", "user", "role")
    autocomplete_fields = ("workspace",)
    raw_id_fields = ("user",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # Another person, or another place, is another membership: who leaves one leaves its restricted collections.
        return () if obj is None else ("workspace", "user")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        in_own = obj is not None and obj.workspace.personal_of_id is not None
        return super().has_change_permission(request, obj) and not in_own

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        of_owner = obj is not None and obj.workspace.personal_of_id == obj.user_id
        return super().has_delete_permission(request, obj) and not of_owner


class PersonAdmin(UserAdmin):  # type: ignore[type-arg]  # it takes none while it runs
    """Django's pages of people. That one who has a workspace isn't deleted here is said without reading all that they
    have written."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        kept = Workspace.objects.filter(personal_of__in=[person.pk for person in objs])
        if kept.exists():
            return [str(person) for person in objs], {}, {str(Workspace._meta.verbose_name)}, []
        return super().get_deleted_objects(objs, request)


# Not in the place of a project's own pages.
if admin.site.is_registered(User) and type(admin.site.get_model_admin(User)) is UserAdmin:
    admin.site.unregister(User)
    admin.site.register(User, PersonAdmin)
