"""What the admin writes holds as if it had been written where it is at home."""

from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.access import caller_of, workspace_for
from accounts.models import Membership, Role, Workspace
from chat.models import ChatHistory, ChatSession, Run
from kernel.errors import Forbidden
from llm import generation
from llm.models import Budget, CachedAnswer, InteractionLog, ModelPrice
from memory.models import Summary
from tests.admin.conftest import Staff
from tests.admin.rows import WORDS, Rows, user
from tests.admin.test_pages import url
from vectorstore.models import Chunk, ChunkVector, Collection, CollectionMember, Document, Garbage, IngestJob, VectorSet


def errors(response: Any) -> str:
    """Of a form that came back."""
    assert response.status_code == 200
    return str(response.context["errors"])


# Workspaces ----------------------------------------------------------------------------------------------------------


def test_an_operator_makes_a_shared_workspace_and_lets_people_in(rows: Rows, operator: Client) -> None:
    assert operator.post(url(Workspace, "add"), {"name": "Sales"}).status_code == 302
    sales = Workspace.objects.get(name="Sales")
    form = {"workspace": str(sales.pk), "user": rows.user.pk, "role": "admin"}
    assert operator.post(url(Membership, "add"), form).status_code == 302
    caller = caller_of(rows.user)
    assert workspace_for(caller, sales.pk) == sales
    assert "already exists" in errors(operator.post(url(Membership, "add"), form))

    membership = Membership.objects.get(workspace=sales, user=rows.user)
    operator.post(url(Membership, "change", membership), {"role": "viewer", "workspace": str(rows.workspace.pk)})
    membership.refresh_from_db()
    assert (membership.role, membership.workspace_id) == (Role.VIEWER, sales.pk)
    operator.post(url(Workspace, "change", sales), {"name": "Sales, north"})
    assert Workspace.objects.get(pk=sales.pk).name == "Sales, north"


def test_who_is_taken_out_of_a_workspace_leaves_its_restricted_collections(rows: Rows, operator: Client) -> None:
    CollectionMember.objects.create(collection=rows.collection, user=rows.user)
    membership = Membership.objects.get(workspace=rows.workspace, user=rows.user)
    assert operator.post(url(Membership, "delete", membership), {"post": "yes"}).status_code == 302
    assert not CollectionMember.objects.filter(user=rows.user).exists()


def test_nobody_is_taken_out_of_their_own_workspace(rows: Rows, operator: Client) -> None:
    own = Membership.objects.get(workspace__personal_of=rows.user)
    assert operator.post(url(Membership, "change", own), {"role": "viewer"}).status_code == 403
    assert operator.post(url(Membership, "delete", own), {"post": "yes"}).status_code == 403
    own.refresh_from_db()
    assert own.role == Role.OWNER


def test_nobody_lets_themselves_into_a_person_s_own_workspace(rows: Rows, staff: Staff) -> None:
    client = staff(*(f"accounts.{right}_membership" for right in ("add", "change", "delete", "view")))
    helper = get_user_model().objects.get(username="helper")
    own = rows.user.personal_workspace
    for role in Role:
        form = {"workspace": str(own.pk), "user": helper.pk, "role": role.value}
        assert "a shared one" in errors(client.post(url(Membership, "add"), form)), role
    with pytest.raises(Forbidden):
        workspace_for(caller_of(helper), own.pk, roles=Role)

    # One that was let in from code is not given a role there either, but taken out.
    let_in = Membership.objects.create(workspace=own, user=helper, role=Role.VIEWER)
    assert client.post(url(Membership, "change", let_in), {"role": "owner"}).status_code == 403
    assert client.post(url(Membership, "delete", let_in), {"post": "yes"}).status_code == 302
    # Their own is theirs, also if it was lost.
    Membership.objects.filter(workspace=own).delete()
    form = {"workspace": str(own.pk), "user": rows.user.pk, "role": "owner"}
    assert client.post(url(Membership, "add"), form).status_code == 302


def test_a_person_with_a_workspace_is_not_deleted_by_a_click(rows: Rows, operator: Client) -> None:
    path = f"/admin/auth/user/{rows.user.pk}/delete/"
    assert "workspace" in str(operator.get(path).context["perms_lacking"])
    assert operator.post(path, {"post": "yes"}).status_code == 403
    assert get_user_model().objects.filter(pk=rows.user.pk).exists()


def test_that_a_person_is_not_deleted_is_said_without_reading_what_they_wrote(rows: Rows, operator: Client) -> None:
    rows.make(ChatHistory, 3)
    path = f"/admin/auth/user/{rows.user.pk}/delete/"
    chosen = {"action": "delete_selected", "_selected_action": [str(rows.user.pk)], "select_across": "0"}
    for ask in (lambda: operator.get(path), lambda: operator.post("/admin/auth/user/", chosen)):
        with CaptureQueriesContext(connection) as seen:
            assert "workspace" in str(ask().context["perms_lacking"])
        assert not [each["sql"] for each in seen if "chat_chat" in each["sql"]]
        assert len(seen) < 12


def test_who_has_no_workspace_is_deleted(operator: Client) -> None:
    somebody = user()
    somebody.personal_workspace.delete()
    path = f"/admin/auth/user/{somebody.pk}/delete/"
    assert operator.post(path, {"post": "yes"}).status_code == 302
    assert not get_user_model().objects.filter(pk=somebody.pk).exists()


# Collections and documents -------------------------------------------------------------------------------------------


def test_a_collection_is_restricted_and_people_are_let_in(rows: Rows, operator: Client) -> None:
    form = {"name": "manuals", "description": "", "access": "restricted"}
    assert operator.post(url(Collection, "change", rows.collection), form).status_code == 302
    rows.collection.refresh_from_db()
    assert (rows.collection.access, rows.collection.name) == ("restricted", "manuals")
    member = {"collection": str(rows.collection.pk), "can_write": "on"}
    stranger = user()
    refused = operator.post(url(CollectionMember, "add"), {**member, "user": stranger.pk})
    assert "no such member of the workspace" in errors(refused)
    assert operator.post(url(CollectionMember, "add"), {**member, "user": rows.user.pk}).status_code == 302
    (made,) = CollectionMember.objects.filter(collection=rows.collection)
    operator.post(url(CollectionMember, "change", made), {"user": stranger.pk})
    made.refresh_from_db()
    assert (made.user_id, made.can_write) == (rows.user.pk, False)


def test_a_collection_gets_no_name_that_is_taken_or_that_a_deleted_one_has(rows: Rows, operator: Client) -> None:
    path = url(Collection, "change", rows.collection)
    other = rows.put(Collection, name="reports")
    form = {"description": "", "access": "workspace"}
    assert "already" in errors(operator.post(path, {**form, "name": " reports "}))
    for gone in (rows.collection, other):
        assert "being deleted" in errors(operator.post(path, {**form, "name": f"deleted {gone.pk}"}))
    assert operator.post(path, {**form, "name": "manuals"}).status_code == 302
    assert operator.post(path, {**form, "name": "deleted scenes"}).status_code == 302
    elsewhere = Collection.objects.create(workspace=rows.user.personal_workspace, name="reports")
    assert operator.post(url(Collection, "change", elsewhere), {**form, "name": "deleted scenes"}).status_code == 302
    rows.collection.refresh_from_db()
    assert rows.collection.name == "deleted scenes"


def test_a_collection_that_is_being_deleted_does_not_come_back(rows: Rows, operator: Client) -> None:
    gone = rows.collection
    Collection.objects.filter(pk=gone.pk).update(name=f"deleted {gone.pk}", access="restricted")
    form = {"name": "manuals", "description": "", "access": "workspace"}
    assert operator.post(url(Collection, "change", gone), form).status_code == 403


@pytest.mark.parametrize("rights", [("delete",), ("view",)], ids=str)
def test_a_document_goes_with_all_that_was_made_from_it(rows: Rows, staff: Staff, rights: tuple[str, ...]) -> None:
    (job,) = rows.make(IngestJob)
    document, other = job.document, rows.document()
    beside = rows.put(VectorSet, collection=rows.collection, embedding_model="m", dimension=2)
    outside = rows.put(
        VectorSet, collection=rows.collection, embedding_model="m", dimension=2, state="building", backend="chroma"
    )
    place = {"collection": rows.collection, "position": 0, "text": WORDS, "start": 0, "end": 1}
    chunks = [rows.put(Chunk, document=each, **place) for each in (document, other)]
    for chunk in chunks:
        ChunkVector.objects.create(vector_set=beside, chunk=chunk, embedding=[0, 1])
    answer = rows.make(CachedAnswer)[0]
    CachedAnswer.objects.filter(pk=answer.pk).update(document_ids=[document.pk])

    client = staff("vectorstore.view_document", *(f"vectorstore.{right}_document" for right in rights))
    path = url(Document, "delete", document)
    if "delete" not in rights:
        assert client.post(path, {"post": "yes"}).status_code == 403
        assert Document.objects.filter(pk=document.pk).exists()
        return
    asked = client.get(path)
    assert asked.status_code == 200
    assert WORDS not in asked.content.decode()
    assert client.post(path, {"post": "yes"}).status_code == 302
    assert list(Document.objects.filter(collection=rows.collection)) == [other]
    assert list(Chunk.objects.filter(collection=rows.collection)) == [chunks[1]]
    assert [each.chunk_id for each in ChunkVector.objects.filter(vector_set=beside)] == [chunks[1].pk]
    assert not IngestJob.objects.filter(pk=job.pk).exists()
    assert not CachedAnswer.objects.filter(pk=answer.pk).exists()
    assert [each.chunk_ids for each in Garbage.objects.filter(set_id=outside.pk)] == [[chunks[0].pk]]


# Conversations -------------------------------------------------------------------------------------------------------


def test_a_session_goes_with_its_messages_and_leaves_no_word_of_them(rows: Rows, operator: Client) -> None:
    summary, run, call = rows.summary(), rows.run(), rows.call()
    for row in (summary, run, call):
        path = url(ChatSession, "delete", row.session)
        asked = operator.get(path)
        assert asked.status_code == 200
        assert WORDS not in asked.content.decode()
        assert operator.post(path, {"post": "yes"}).status_code == 302
    gone = [summary.session_id, run.session_id, call.session_id]
    for model in (ChatHistory, Run, Summary):
        assert not model.objects.filter(session_id__in=gone).exists()
    assert InteractionLog.objects.get(pk=call.pk).session_id is None
    written = LogEntry.objects.values_list("object_repr", flat=True)
    assert set(map(str, gone)) <= set(written)
    assert not any(WORDS in each for each in written)


# Prices and budgets --------------------------------------------------------------------------------------------------


def test_a_price_begins_and_is_noticed_by_all(rows: Rows, operator: Client) -> None:
    before = generation.of(rows.workspace.pk)
    assert operator.get(url(ModelPrice, "add")).status_code == 200
    form = {
        "provider": "", "model_name": "new", "input_price": "0.25", "output_price": "2", "cached_input_price": "",
        "valid_from_0": "2026-01-01", "valid_from_1": "00:00:00",
    }  # fmt: skip
    assert operator.post(url(ModelPrice, "add"), form).status_code == 302
    made = ModelPrice.objects.get(model_name="new")
    assert (made.input_price, made.output_price, made.cached_input_price) == (Decimal("0.25"), Decimal(2), None)
    assert generation.of(rows.workspace.pk) > before
    assert "already exists" in errors(operator.post(url(ModelPrice, "add"), form))
    for name, wrong in (("input_price", "-1"), ("output_price", "100001"), ("cached_input_price", "NaN")):
        refused = operator.post(url(ModelPrice, "add"), {**form, "model_name": "other", name: wrong})
        assert errors(refused)
    assert not ModelPrice.objects.filter(model_name="other").exists()


def test_a_budget_is_set_and_changed(rows: Rows, operator: Client) -> None:
    before = generation.of(rows.workspace.pk)
    form = {"workspace": str(rows.workspace.pk), "kind": "tokens_per_day", "limit": "100", "per": "workspace"}
    form |= {"user": str(rows.user.pk), "is_active": "on"}
    assert "not a member" in errors(operator.post(url(Budget, "add"), {**form, "user": str(user().pk)}))
    assert "more than 0" in errors(operator.post(url(Budget, "add"), {**form, "limit": "0"}))
    assert operator.post(url(Budget, "add"), form).status_code == 302
    made = Budget.objects.get(workspace=rows.workspace)
    assert (made.limit, made.user) == (100, rows.user)
    set_ = generation.of(rows.workspace.pk)
    assert set_ > before

    change = {"limit": "50", "kind": "money_per_month", "is_active": "on"}
    assert operator.post(url(Budget, "change", made), change).status_code == 302
    made.refresh_from_db()
    assert (made.limit, made.kind) == (50, "tokens_per_day")
    assert generation.of(rows.workspace.pk) > set_
    assert operator.post(url(Budget, "delete", made), {"post": "yes"}).status_code == 302
    assert not Budget.objects.filter(workspace=rows.workspace).exists()


def test_a_workspace_has_as_many_budgets_as_over_rest(
    rows: Rows, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm.budget_rows.MAX_PER_WORKSPACE", 1)
    rows.make(Budget)
    form = {"workspace": str(rows.workspace.pk), "kind": "tokens_per_day", "limit": "100", "per": "workspace"}
    assert "at most 1 budgets" in errors(operator.post(url(Budget, "add"), form))
