"""Each page opens, shows nothing private, and lets nobody write what has rules elsewhere."""

from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db.models import Model
from django.test import Client

from accounts.models import Membership, Workspace
from chat.models import ChatHistory, ChatSession
from kernel.admin_pages import ReadOnly
from llm.models import Budget, InteractionLog, ModelPrice
from tests.admin.conftest import Staff
from tests.admin.rows import KEY, MODELS, SIGNED, WORDS, Rows
from vectorstore.models import Collection, CollectionMember, Document

#: Indexes and copies that hold nothing to read.
WITHOUT_PAGES = {
    "llm.ConfigGeneration",
    "memory.BranchPath",
    "memory.MessageVector",
    "vectorstore.CachedEmbedding",
    "vectorstore.Chunk",
    "vectorstore.ChunkLookup",
    "vectorstore.ChunkVector",
}
ADDED = {Workspace, Membership, ModelPrice, Budget, CollectionMember}
CHANGED = ADDED - {ModelPrice} | {Collection}
DELETED = {Membership, Budget, CollectionMember, ChatSession, Document}


def url(model: type[Model], page: str = "", row: Any = None) -> str:
    key = "" if row is None else f"{row.pk}/"
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/{key}{page and page + '/'}"


def name(model: type[Model]) -> str:
    return model._meta.object_name or ""


def check_private(html: str, *, texts: bool = False) -> None:
    assert KEY not in html
    assert SIGNED not in html
    assert "0.123456" not in html, "a vector"
    assert (WORDS in html) == texts


def test_every_model_has_pages_but_those_that_nobody_can_read() -> None:
    ours = {"accounts", "llm", "memory", "vectorstore", "chat"}
    models = [model for model in apps.get_models() if model._meta.app_label in ours]
    without = {model._meta.label for model in models if not admin.site.is_registered(model)}
    assert without == WITHOUT_PAGES
    assert {model for model in models if admin.site.is_registered(model)} == set(MODELS)


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_lists_and_rows_open_and_show_nothing_private(model: type[Model], rows: Rows, operator: Client) -> None:
    (row,) = rows.make(model)
    for path in (url(model), url(model, "change", row), url(model, "history", row)):
        response = operator.get(path)
        assert response.status_code == 200, path
        is_log = model is InteractionLog and "change" in path
        check_private(response.content.decode(), texts=is_log)
    listed = operator.get(url(model)).context["cl"].result_list
    assert listed[0].pk == row.pk if model is not Workspace else row.pk in [each.pk for each in listed]


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_only_what_has_no_rules_elsewhere_is_written(model: type[Model], rows: Rows, operator: Client) -> None:
    (row,) = rows.make(model)
    before = model._default_manager.filter(pk=row.pk).values().get()
    may_add = operator.get(url(model, "add")).status_code == 200
    may_delete = operator.get(url(model, "delete", row)).status_code == 200
    may_change = operator.get(url(model, "change", row)).context["has_change_permission"]
    assert (may_add, may_change, may_delete) == (model in ADDED, model in CHANGED, model in DELETED)
    if model not in ADDED:
        assert operator.post(url(model, "add"), {}).status_code == 403
    if model not in CHANGED:
        assert operator.post(url(model, "change", row), {}).status_code == 403
    if model not in DELETED:
        assert operator.post(url(model, "delete", row), {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"}
    operator.post(url(model), chosen)
    assert model._default_manager.filter(pk=row.pk).values().get() == before


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_staff_see_what_they_have_the_right_to(model: type[Model], rows: Rows, staff: Staff) -> None:
    (row,) = rows.make(model)
    label, lower = model._meta.app_label, model._meta.model_name
    client = staff(f"{label}.view_{lower}")
    for path in (url(model), url(model, "change", row)):
        response = client.get(path)
        assert response.status_code == 200, path
        check_private(response.content.decode())
    assert client.post(url(model, "change", row), {"name": "x"}).status_code == 403
    assert client.get(url(model, "add")).status_code == 403
    assert client.get(url(model, "delete", row)).status_code == 403
    other = InteractionLog if model is not InteractionLog else ChatHistory
    (foreign,) = rows.make(other)
    assert client.get(url(other)).status_code == client.get(url(other, "change", foreign)).status_code == 403


def test_the_texts_of_the_log_need_a_right_of_their_own(rows: Rows, staff: Staff) -> None:
    (call,) = rows.make(InteractionLog)
    client = staff("llm.view_interactionlog", "llm.read_interactionlog_texts")
    check_private(client.get(url(InteractionLog, "change", call)).content.decode(), texts=True)
    check_private(client.get(url(InteractionLog)).content.decode())


def test_who_is_no_staff_is_sent_away(rows: Rows) -> None:
    for model in MODELS:
        assert Client().get(url(model)).status_code == 302
        assert Client().post(url(model), {}).status_code == 302


def test_every_page_is_read_only_or_said_not_to_be() -> None:
    editable = {model for model in MODELS if not isinstance(admin.site.get_model_admin(model), ReadOnly)}
    assert editable == ADDED | CHANGED
