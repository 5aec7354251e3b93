"""What the admin's pages share: lists that stay fast over huge tables, and rows that nobody edits by hand.

No page counts a table, sorts it by the column that was clicked on, or offers a filter or a search without an index. A
list has the newest rows; older ones are found by an id, by their owner, or by the time at which they were made.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, ClassVar, Final
from uuid import UUID

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import ForeignKey, Model, Q, QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join

from kernel.errors import ChainError
from kernel.ids import first_id

#: What a list shows in the place of nothing.
NOTHING = "-"
#: What Django's filters of a column ask for, behind its name.
_ASKED: Final = ("", "__exact", "__isnull", "__gte", "__lt", "__id__exact")


class Newest(Paginator):  # type: ignore[type-arg]  # it takes none while it runs
    """Pages of the first rows of a list; it counts no further than it shows."""

    MOST = 10_000

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[: self.MOST].count())


class _Of(admin.SimpleListFilter):
    """The rows of one owner, whom a link names: all that there are would be too many to choose from."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        value = self.value()
        return [(value, value)] if value else []

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        value = self.value()
        if not value:
            return queryset
        try:
            return queryset.filter(**{f"{self.parameter_name}_id": UUID(value)})
        except ValueError as error:
            raise IncorrectLookupParameters from error


class OfWorkspace(_Of):
    title = parameter_name = "workspace"


class OfSession(_Of):
    title = parameter_name = "session"


class OfCollection(_Of):
    title = parameter_name = "collection"


class Made(admin.SimpleListFilter):
    """When a row was made. Ids are UUIDv7, so the primary key finds it."""

    title = parameter_name = "made"
    _DAYS: ClassVar[Mapping[str, int]] = {"day": 1, "week": 7, "month": 30, "quarter": 91, "year": 365}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        within = [(name, f"Within a {name}") for name in ("day", "week", "month")]
        return within + [(f"-{name}", f"More than a {name} ago") for name in ("month", "quarter", "year")]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        value = self.value() or ""
        days = self._DAYS.get(value.removeprefix("-"))
        if days is None:
            return queryset
        edge = first_id(timezone.now() - timedelta(days=days))
        return queryset.filter(pk__lt=edge) if value.startswith("-") else queryset.filter(pk__gte=edge)


class Open(admin.SimpleListFilter):
    """What is not done, for work that a partial index knows."""

    title = parameter_name = "open"
    condition: ClassVar[Q] = Q(open=True)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "Only what is open")]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        return queryset.filter(self.condition) if self.value() else queryset


class _Unsorted(ChangeList):
    """A list in its own order, also where an address asks for another one."""

    def get_ordering_field(self, field_name: Any) -> None:
        return None


class _Choice(AutocompleteSelect):
    """A choice that has nothing chosen where an address, or a form that was sent, names no id."""

    def optgroups(self, name: str, value: Any, attr: Any = None) -> Any:
        try:
            return super().optgroups(name, value, attr)
        except ValidationError:
            return super().optgroups(name, [], attr)


class Page(admin.ModelAdmin):  # type: ignore[type-arg]  # it takes none while it runs
    """A model's pages. `search_fields` are whole lookups, tried one after the other: the first that finds any rows
    says what is found, so that each of them uses its own index."""

    paginator = Newest
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    actions = None
    ordering = ("-pk",)
    list_per_page = 50
    search_help_text = "The ID of a row, or of what it belongs to."
    #: What the page of a row has, from top to bottom: columns, and functions that make a field of the row.
    shown: ClassVar[Sequence[Any]]
    #: Columns that are large or private: read only where a page shows them, one row at a time.
    unread: ClassVar[Sequence[str]] = ()
    #: Owner → what is filtered and searched by among its rows alone: an index begins with it, or they are few.
    filters_within: ClassVar[Mapping[str, Sequence[str]]] = {}
    searches_within: ClassVar[Mapping[str, Sequence[str]]] = {}

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Any]":
        return super().get_queryset(request).defer(*self.unread)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _Unsorted

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.shown

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        # By any other filter, whoever sees the list could guess at a column that no page shows, letter by letter.
        listed = self.list_filter if request is None else self.get_list_filter(request)
        return "\0" not in value and any(lookup in _addressed(each) for each in listed)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs["widget"] = _Choice(db_field, self.admin_site, using=kwargs.get("using"))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        # As values, not as the text of the address, which widgets take for values.
        return dict(_valid(self.opts.fields, super().get_changeform_initial_data(request)))

    def get_list_filter(self, request: HttpRequest) -> Any:
        return [*super().get_list_filter(request), *_named_by(request, self.filters_within)]

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [*super().get_search_fields(request), *_named_by(request, self.searches_within)]

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str
    ) -> "tuple[QuerySet[Any], bool]":
        term = search_term.strip()
        if not term:
            return queryset, False
        for lookup in self.get_search_fields(request):
            try:
                found = queryset.filter(**{lookup: term})
                any_found = found.exists()
            except (ValueError, ValidationError):  # it is no id, or no text that the database takes
                continue
            if any_found:
                return found, False
        return queryset.none(), False

    @admin.display(description="workspace")
    def in_workspace(self, row: Any) -> str:
        """A link to the list of that workspace's rows alone."""
        if row.workspace_id is None:
            return "all"
        return format_html('<a href="?workspace={}">{}</a>', row.workspace_id, row.workspace)


class ReadOnly(Page):
    """Pages of rows whose rules live elsewhere: to be looked at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@contextmanager
def rules(form: Any, field: str | None = None) -> Iterator[None]:
    """Inside, the error of a rule that lives elsewhere is one of the form: of this field, or of all of it."""
    try:
        yield
    except ChainError as error:
        form.add_error(field, error.message)


def reference(name: str) -> Callable[[Any], str]:
    """A column with a foreign key's id and a link to its page. The row itself isn't read: its name may be private."""

    def show(row: Any) -> str:
        field = row._meta.get_field(name)
        value = getattr(row, field.attname)
        return NOTHING if value is None else _link(field.related_model, "change", value, str(value))

    show.__name__ = name
    return admin.display(show, description=name.replace("_", " "))


def holdings(name: str, *, owner: type[Model]) -> Callable[[Any], str]:
    """A field with links to the lists of all that belongs to a row: of the models whose foreign key `name` is one to
    `owner`."""

    def show(row: Any) -> str:
        theirs = [model for model in apps.get_models() if admin.site.is_registered(model) and _refers(model)]
        links = ((_link(model, "changelist", None, _plural(model), query=f"?{name}={row.pk}"),) for model in theirs)
        return format_html_join(", ", "{}", links)

    def _refers(model: type[Model]) -> bool:
        fields = (field for field in model._meta.concrete_fields if field.name == name)
        return any(isinstance(field, ForeignKey) and field.related_model is owner for field in fields)

    show.__name__ = "holdings"
    return admin.display(show, description="what it holds")


def as_json(name: str) -> Callable[[Any], str]:
    """A field with JSON in lines."""

    def show(row: Any) -> str:
        value = getattr(row, name)
        if value is None:
            return NOTHING
        return format_html("<pre>{}</pre>", json.dumps(value, indent=2, ensure_ascii=False, default=str))

    show.__name__ = name
    return admin.display(show, description=name.replace("_", " "))


def _plural(model: type[Model]) -> str:
    return str(model._meta.verbose_name_plural)


def _link(model: Any, page: str, key: Any, text: str, *, query: str = "") -> str:
    """Plain text where the project's admin has no such page."""
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}"
    try:
        url = reverse(name, args=() if key is None else (key,))
    except NoReverseMatch:
        return text
    return format_html('<a href="{}{}">{}</a>', url, query, text)


def _addressed(listed: Any) -> set[str]:
    """What a filter of a list is asked by in an address."""
    if isinstance(listed, type):
        return {getattr(listed, "parameter_name", "")}
    column = listed if isinstance(listed, str) else listed[0]
    return {f"{column}{asked}" for asked in _ASKED}


def _valid(fields: Sequence[Any], values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for field in fields:
        if field.name in values:
            with suppress(ValidationError):
                yield field.name, field.to_python(values[field.name])


def _named_by(request: HttpRequest, within: Mapping[str, Sequence[str]]) -> list[str]:
    return [column for owner, columns in within.items() if request.GET.get(owner) for column in columns]
