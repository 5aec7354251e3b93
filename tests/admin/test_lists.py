"""Lists cost the same for few rows and for many, and look for nothing without an index."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import Model
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Membership, Workspace
from chat.models import ChatHistory, ChatSession, Run
from kernel import admin_pages
from kernel.admin_pages import Made, Newest, Open
from kernel.ids import first_id, new_id
from llm.models import InteractionLog, ModelConfig, ModelPrice, Prompt, Workflow
from memory.models import MemoryJob
from tests.admin.conftest import Staff
from tests.admin.rows import MODELS, Rows
from tests.admin.test_pages import name, url
from vectorstore.models import Collection, Document, IngestJob, SemanticAnswer

#: The session and its person; how many rows there are, and those of the page.
LIST = 4
FEW, MANY = 2, 12


def listed(client: Client, path: str) -> list[Any]:
    response = client.get(path)
    assert response.status_code == 200, path
    return [row.pk for row in response.context["cl"].result_list]


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_a_list_costs_four_queries_however_much_there_is(model: type[Model], rows: Rows, operator: Client) -> None:
    path = url(model)
    if any(field.name == "workspace" for field in model._meta.fields):
        path += f"?workspace={rows.workspace.pk}"
    for number in (FEW, MANY):
        rows.make(model, number)
        with CaptureQueriesContext(connection) as seen:
            found = listed(operator, path)
        assert len(found) >= number
        assert len(seen) == LIST, [each["sql"][:200] for each in seen]


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        (ChatHistory, ["content", "sources"]),
        (ChatSession, ["title"]),
        (Document, ["text", "metadata"]),
        (IngestJob, ["content", "url", "metadata"]),
        (InteractionLog, ["prompt_text", "response_text", "steps"]),
        (ModelConfig, ["encrypted_key"]),
        (Prompt, ["prompt_template"]),
        (SemanticAnswer, ["text", "embedding"]),
        (Workflow, ["workflow_definition"]),
    ],
    ids=str,
)
def test_a_list_reads_no_large_or_private_column(
    model: type[Model], columns: list[str], rows: Rows, operator: Client
) -> None:
    rows.make(model)
    with CaptureQueriesContext(connection) as seen:
        listed(operator, url(model))
    read = [each["sql"].partition(" FROM ")[0].replace('"encrypted_key" = ', "") for each in seen]
    for column_name in columns:
        assert all(f'"{column_name}"' not in each for each in read), column_name


def test_staff_with_some_rights_cost_two_queries_more(rows: Rows, staff: Staff) -> None:
    client = staff("llm.view_interactionlog")
    for number in (FEW, MANY):
        rows.make(InteractionLog, number)
        with CaptureQueriesContext(connection) as seen:
            listed(client, url(InteractionLog))
        assert len(seen) == LIST + 2, [each["sql"][:200] for each in seen]


def test_a_list_counts_and_pages_through_the_newest_rows_alone(
    rows: Rows, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Newest, "MOST", 7)
    rows.make(InteractionLog, 12)
    with CaptureQueriesContext(connection) as seen:
        response = operator.get(url(InteractionLog))
    assert response.context["cl"].result_count == 7
    (count,) = [each["sql"] for each in seen if "COUNT(" in each["sql"]]
    assert "LIMIT 7" in count
    assert "JOIN" not in count


def test_no_click_and_no_facet_makes_a_list_slow(rows: Rows, operator: Client) -> None:
    rows.make(InteractionLog, 3)
    newest = listed(operator, url(InteractionLog))
    assert newest == sorted(newest, reverse=True)
    assert b"sortable" not in operator.get(url(InteractionLog)).content
    for column_asked_for in ("0", "1", "-1", "8", "x", "99"):
        assert listed(operator, f"{url(InteractionLog)}?o={column_asked_for}") == newest
    with CaptureQueriesContext(connection) as seen:
        listed(operator, f"{url(InteractionLog)}?_facets=True")
    assert len(seen) == LIST


# Searches ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_a_row_is_found_by_its_id_and_nonsense_finds_nothing(model: type[Model], rows: Rows, operator: Client) -> None:
    row, _ = rows.make(model, 2)
    assert listed(operator, f"{url(model)}?q=+{row.pk}+") == [row.pk]
    for nonsense in ("nonsense", "0", "1" * 40, str(new_id()), "%", "'"):
        assert listed(operator, f"{url(model)}?q={nonsense}") == [], nonsense


def test_rows_are_found_by_what_they_belong_to(rows: Rows, operator: Client) -> None:
    message, other = rows.make(ChatHistory, 2)
    assert listed(operator, f"{url(ChatHistory)}?q={message.session_id}") == [message.pk]
    assert set(listed(operator, f"{url(ChatHistory)}?q={rows.workspace.pk}")) == {message.pk, other.pk}
    person = rows.user.get_username()
    assert set(listed(operator, f"{url(ChatSession)}?q={person}")) == {message.session_id, other.session_id}
    assert listed(operator, f"{url(Membership)}?q={rows.user.pk}") == [
        each.pk for each in Membership.objects.filter(user=rows.user).order_by("-pk")
    ]
    assert listed(operator, f"{url(Workspace)}?q={person}'s+wor") == [rows.user.personal_workspace.pk]
    document = rows.document()
    within = f"{url(Document)}?collection={rows.collection.pk}"
    assert listed(operator, f"{within}&q={document.source.replace('?', '%3F')}") == [document.pk]


def test_a_workspace_is_chosen_by_how_its_name_begins(rows: Rows, operator: Client) -> None:
    asked = "app_label=accounts&model_name=membership&field_name=workspace"
    found = operator.get(f"/admin/autocomplete/?{asked}&term=a+te").json()["results"]
    assert {"id": str(rows.workspace.pk), "text": "a team"} in found


# Filters -------------------------------------------------------------------------------------------------------------


def test_rows_of_one_workspace_session_or_collection(rows: Rows, operator: Client) -> None:
    (mine,) = rows.make(InteractionLog)
    theirs = Rows()
    theirs.make(InteractionLog)
    assert listed(operator, f"{url(InteractionLog)}?workspace={rows.workspace.pk}") == [mine.pk]
    assert listed(operator, f"{url(InteractionLog)}?session={mine.session_id}") == [mine.pk]
    assert listed(operator, f"{url(InteractionLog)}?workspace={rows.workspace.pk}&status__exact=ok") == []
    assert listed(operator, f"{url(InteractionLog)}?workspace={rows.workspace.pk}&q=m&status__exact=started") == []
    (document,) = rows.make(Document)
    theirs.make(Document)
    assert listed(operator, f"{url(Document)}?collection={rows.collection.pk}&state__exact=queued") == [document.pk]
    assert operator.get(f"{url(Document)}?collection=x").status_code == 302


def test_a_filter_that_needs_a_workspace_is_offered_in_one_alone(rows: Rows, operator: Client) -> None:
    rows.make(InteractionLog)
    assert b"By status" not in operator.get(url(InteractionLog)).content
    assert b"By status" in operator.get(f"{url(InteractionLog)}?workspace={rows.workspace.pk}").content


def test_rows_are_found_by_when_they_were_made(rows: Rows, operator: Client) -> None:
    (young,) = rows.make(ChatSession)
    old = rows.put(
        ChatSession, id=first_id(timezone.now() - timedelta(days=40)), user=rows.user, workflow=rows.workflow
    )
    place = f"{url(ChatSession)}?workspace={rows.workspace.pk}"
    assert listed(operator, f"{place}&made=week") == [young.pk]
    assert listed(operator, f"{place}&made=-month") == [old.pk]
    assert listed(operator, f"{place}&made=-year") == []


@pytest.mark.parametrize("model", [Run, MemoryJob, IngestJob], ids=name)
def test_what_is_open_is_found(model: type[Model], rows: Rows, operator: Client) -> None:
    row, done = rows.make(model, 2)
    ended: dict[str, Any] = {"status": "complete"} if model is Run else {"open": False}
    model._default_manager.filter(pk=done.pk).update(**ended)
    assert listed(operator, f"{url(model)}?workspace={rows.workspace.pk}&open=1") == [row.pk]


def test_links_lead_to_what_a_workspace_a_session_and_a_collection_hold(rows: Rows, operator: Client) -> None:
    call = rows.make(InteractionLog)[0]
    document = rows.document()
    for owner, key, model, row in (
        (Workspace, rows.workspace, InteractionLog, call),
        (ChatSession, call.session, InteractionLog, call),
        (Collection, rows.collection, Document, document),
    ):
        html = operator.get(url(owner, "change", key)).content.decode()
        links = [part.split('"')[0] for part in html.split('href="') if f"={key.pk}" in part.split('"')[0]]
        assert len(links) >= 3
        for link in links:
            assert operator.get(link).status_code == 200, link
        (wanted,) = [link for link in links if link.startswith(url(model))]
        assert listed(operator, wanted) == [row.pk]


# Indexes -------------------------------------------------------------------------------------------------------------


def indexes(model: type[Model]) -> list[list[str]]:
    with connection.cursor() as cursor:
        known = connection.introspection.get_constraints(cursor, model._meta.db_table)
    return [each["columns"] for each in known.values() if each["index"] or each["unique"]]


def column(model: type[Model], lookup: str) -> tuple[type[Model], str]:
    first, _, rest = lookup.partition("__")
    field: Any = next(each for each in model._meta.fields if first in (each.name, each.attname))
    if rest and field.is_relation:
        return column(field.related_model, rest)
    return model, field.column


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_what_is_searched_and_filtered_by_has_an_index(db: None, model: type[Model]) -> None:
    page: Any = admin.site.get_model_admin(model)
    looked_at = [*page.search_fields]
    for each in page.list_filter:
        if isinstance(each, str):
            looked_at.append(each)
        elif issubclass(each, admin_pages._Of):
            looked_at.append(f"{each.parameter_name}_id")
        elif issubclass(each, Open):
            assert any("lease_expires_at" in columns for columns in indexes(model))
        else:
            assert each is Made
    for lookup in looked_at:
        if (model, lookup) == (ModelPrice, "model_name"):
            continue  # a small table, which every process reads as a whole
        where, wanted = column(model, lookup)
        assert any(columns[:1] == [wanted] for columns in indexes(where)), lookup


def test_how_a_name_begins_is_looked_up_in_its_index(db: None, operator: Client) -> None:
    page = admin.site.get_model_admin(Workspace)
    request = RequestFactory().get("/")
    request.user = get_user_model().objects.get(username="operator")
    Workspace.objects.create(name="the only one")
    found, _ = page.get_search_results(request, Workspace.objects.all(), "the only")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    assert "workspace_by_name" in found.explain()
