"""What the address of a page may ask for: a list's own filters, and nothing that breaks a page."""

from typing import Any
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.db.models import Model
from django.test import Client

from chat.models import ChatHistory, ChatSession
from llm.models import Budget, InteractionLog, ModelPrice
from memory.models import MemoryJob
from tests.admin.conftest import Staff
from tests.admin.rows import KEY, MODELS, SIGNED, WORDS, Rows
from tests.admin.test_lists import listed
from tests.admin.test_pages import name, url
from vectorstore.models import CollectionMember, VectorSet

#: Ways to ask whether a column has something.
LOOKUPS = (
    "",
    "__exact",
    "__startswith",
    "__icontains",
    "__contains",
    "__regex",
    "__gte",
    "__in",
    "__isnull",
    "__has_key",
)
#: Values that hit the rows, and some that no query takes.
VALUES = (WORDS, KEY, SIGNED, "1", "\0", "(", "9" * 30, "")


def filters(model: type[Model]) -> set[str]:
    """The columns that the model's list offers to filter by, wherever it does."""
    page: Any = admin.site.get_model_admin(model)
    named = [each if isinstance(each, str) else each.parameter_name for each in page.list_filter]
    return {*named, *(column for columns in page.filters_within.values() for column in columns)}


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_no_column_is_guessed_at_by_a_filter_that_a_list_has_not(
    model: type[Model], rows: Rows, operator: Client
) -> None:
    rows.make(model)
    page: Any = admin.site.get_model_admin(model)
    assert not filters(model) & set(page.unread)
    within = "&".join(f"{owner}={rows.workspace.pk}" for owner in page.filters_within)
    columns = [field.name for field in model._meta.concrete_fields if field.name not in filters(model)]
    guesses = [(column, lookup) for column in page.unread for lookup in LOOKUPS]
    guesses += [(column, LOOKUPS[number % len(LOOKUPS)]) for number, column in enumerate(columns)]
    for number, (column, lookup) in enumerate(guesses):
        asked = f"{url(model)}?{within}&{column}{lookup}={quote(VALUES[number % len(VALUES)])}"
        assert operator.get(asked).status_code == 400, asked


@pytest.mark.parametrize(
    "path",
    [
        "chat/chathistory/?session__title__startswith=w",
        "chat/chathistory/?parent__content__startswith=w",
        "chat/chatsession/?messages__content__contains=w",
        "chat/chatsession/?user__password__startswith=p",
        "accounts/membership/?user__password__startswith=p",
        "vectorstore/ingestjob/?document__text__contains=w",
        "llm/interactionlog/?session__title=w",
        "auth/user/?chat_sessions__title__startswith=w",
    ],
    ids=str,
)
def test_nor_are_the_columns_of_what_a_row_belongs_to(path: str, rows: Rows, operator: Client) -> None:
    rows.message()
    assert operator.get(f"/admin/{path}").status_code == 400


def test_staff_who_may_not_read_the_log_s_texts_cannot_guess_at_them(rows: Rows, staff: Staff) -> None:
    rows.make(InteractionLog)
    client = staff("llm.view_interactionlog")
    for guess in (WORDS[:5], "other"):
        assert client.get(f"{url(InteractionLog)}?response_text__startswith={guess}").status_code == 400


def test_the_list_s_own_filters_hold_as_django_writes_them(rows: Rows, operator: Client) -> None:
    message, other = rows.message(), rows.message()
    within = f"{url(ChatHistory)}?session={message.session_id}"
    assert listed(operator, f"{within}&role__exact=USER") == listed(operator, f"{within}&role=USER") == [message.pk]
    assert listed(operator, f"{within}&role__exact=ASSISTANT") == []
    assert operator.get(f"{url(ChatHistory)}?role__exact=USER").status_code == 400, "of all sessions"
    retired = rows.vector_set()
    assert listed(operator, f"{url(VectorSet)}?state__exact=retired") == [retired.pk]
    assert listed(operator, f"{url(VectorSet)}?state__isnull=True") == []
    (job,) = rows.make(MemoryJob)
    assert listed(operator, f"{url(MemoryJob)}?session={job.session_id}") == [job.pk]
    # What else Django's own links and windows add.
    assert other.pk in listed(operator, f"{url(ChatHistory)}?all=&_popup=1&_to_field=id&q=&o=1&p=1&e=1")


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_no_address_breaks_a_list(model: type[Model], rows: Rows, operator: Client) -> None:
    rows.make(model)
    page: Any = admin.site.get_model_admin(model)
    within = "&".join(f"{owner}={rows.workspace.pk}" for owner in page.searches_within)
    for each in ("q", "p", "_to_field", *filters(model), *(f"{column}__exact" for column in filters(model))):
        for value in ("\0", "(", "9" * 30):
            path = f"{url(model)}?{within}&{each}={quote(value)}"
            assert operator.get(path).status_code in {200, 302, 400}, path


@pytest.mark.parametrize("model", [Budget, CollectionMember, ModelPrice], ids=name)
def test_no_address_and_no_form_breaks_a_page_to_add_with(model: type[Model], rows: Rows, operator: Client) -> None:
    wrong = ("zzz", "\0", "9" * 30, "-1", "2026-01-01", "", str(rows.workspace.pk))
    for field in model._meta.concrete_fields:
        for value in wrong:
            path = f"{url(model, 'add')}?{field.name}={quote(value)}"
            assert operator.get(path).status_code == 200, path
            assert operator.post(url(model, "add"), {field.name: value}).status_code == 200, path


def test_a_form_begins_with_what_its_address_says(rows: Rows, operator: Client) -> None:
    shown = operator.get(f"{url(Budget, 'add')}?workspace={rows.workspace.pk}&limit=12&user={rows.user.pk}")
    html = shown.content.decode()
    assert f'<option value="{rows.workspace.pk}" selected>a team</option>' in html
    assert 'value="12' in html
    assert f'value="{rows.user.pk}"' in html
    shown = operator.get(f"{url(ModelPrice, 'add')}?valid_from=2026-01-02T03:04:05Z&input_price=0.5")
    assert b'value="2026-01-02"' in shown.content


# What the names of rows tell ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_no_choice_from_a_list_names_what_is_private(model: type[Model], rows: Rows, operator: Client) -> None:
    rows.make(model)
    for field in model._meta.concrete_fields:
        if not field.is_relation:
            continue
        asked = f"app_label={model._meta.app_label}&model_name={model._meta.model_name}&field_name={field.name}"
        for term in ("", WORDS, "w"):
            answer = operator.get(f"/admin/autocomplete/?{asked}&term={term}").content.decode()
            assert WORDS not in answer, field
            assert SIGNED not in answer, field


def test_a_session_is_called_by_its_id(rows: Rows, operator: Client) -> None:
    session = rows.session()
    assert session.title
    assert str(session) == str(ChatSession.objects.get(pk=session.pk)) == str(session.pk)
    asked = "app_label=chat&model_name=chathistory&field_name=session"
    found = operator.get(f"/admin/autocomplete/?{asked}&term=").json()["results"]
    assert {"id": str(session.pk), "text": str(session.pk)} in found
