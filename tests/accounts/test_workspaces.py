"""Who may see and write where."""

from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core import serializers
from django.db import IntegrityError, transaction

from accounts.access import Caller, caller_of, from_session_key, workspace_for
from accounts.models import Membership, Role, Workspace
from chat.models import ChatSession
from kernel.errors import Forbidden, NotAuthenticated

pytestmark = pytest.mark.django_db


def person(name: str) -> tuple[Caller, int]:
    user = get_user_model().objects.create_user(name)
    return caller_of(user), user.pk


def join(workspace: Workspace, user_id: int, role: Role) -> Membership:
    return Membership.objects.create(workspace=workspace, user_id=user_id, role=role)


def test_each_new_user_owns_a_personal_workspace() -> None:
    user = get_user_model().objects.create_user("ada")
    workspace = Workspace.objects.get(personal_of=user)
    assert workspace.name == "ada's workspace"
    assert [membership.role for membership in workspace.memberships.all()] == [Role.OWNER]
    user.first_name = "Ada"
    user.save()
    assert Workspace.objects.filter(memberships__user=user).count() == 1


def test_a_long_name_still_fits() -> None:
    user = get_user_model().objects.create_user("a" * 150)
    assert len(Workspace.objects.get(personal_of=user).name) <= 200


def test_users_that_are_loaded_from_a_fixture_bring_their_own_workspaces() -> None:
    user = get_user_model()(pk=4711, username="loaded")
    (loaded,) = serializers.deserialize("json", serializers.serialize("json", [user]))
    loaded.save()
    assert not Workspace.objects.filter(personal_of_id=4711).exists()


def test_nobody_is_a_member_twice() -> None:
    _, user_id = person("ada")
    workspace = Workspace.objects.create(name="shared")
    join(workspace, user_id, Role.MEMBER)
    with pytest.raises(IntegrityError), transaction.atomic():
        join(workspace, user_id, Role.VIEWER)


def test_without_a_name_one_works_in_ones_own_workspace() -> None:
    caller, user_id = person("ada")
    join(Workspace.objects.create(name="shared"), user_id, Role.OWNER)
    assert workspace_for(caller).personal_of_id == user_id


def test_without_a_personal_workspace_the_first_that_one_may_write_in_serves() -> None:
    caller, user_id = person("ada")
    Workspace.objects.filter(personal_of_id=user_id).delete()
    join(Workspace.objects.create(name="watched"), user_id, Role.VIEWER)
    shared = Workspace.objects.create(name="shared")
    join(shared, user_id, Role.MEMBER)
    assert workspace_for(caller) == shared


@pytest.mark.parametrize("role", Role)
def test_every_role_but_the_viewers_may_write(role: Role) -> None:
    caller, user_id = person("ada")
    shared = Workspace.objects.create(name="shared")
    join(shared, user_id, role)
    if role is Role.VIEWER:
        with pytest.raises(Forbidden):
            workspace_for(caller, shared.id)
    else:
        assert workspace_for(caller, shared.id) == shared


def test_a_viewer_in_a_workspace_takes_nothing_from_its_writers() -> None:
    writer, writer_id = person("ada")
    viewer, viewer_id = person("bob")
    shared = Workspace.objects.create(name="shared")
    join(shared, writer_id, Role.MEMBER)
    join(shared, viewer_id, Role.VIEWER)
    assert workspace_for(writer, shared.id) == shared
    with pytest.raises(Forbidden):
        workspace_for(viewer, shared.id)


def test_another_writer_in_a_workspace_gives_a_viewer_nothing() -> None:
    viewer, viewer_id = person("ada")
    _, writer_id = person("bob")
    shared = Workspace.objects.create(name="shared")
    join(shared, viewer_id, Role.VIEWER)
    join(shared, writer_id, Role.OWNER)
    with pytest.raises(Forbidden):
        workspace_for(viewer, shared.id)


def test_a_foreign_and_a_missing_workspace_are_the_same_refusal() -> None:
    caller, _ = person("ada")
    messages = []
    for workspace_id in (Workspace.objects.create(name="theirs").id, uuid4()):
        with pytest.raises(Forbidden) as refusal:
            workspace_for(caller, workspace_id)
        messages.append(refusal.value.message)
    assert messages[0] == messages[1]


def test_rows_are_seen_by_members_only_and_each_once() -> None:
    caller, user_id = person("ada")
    stranger, stranger_id = person("eve")
    shared = Workspace.objects.create(name="shared")
    membership = join(shared, user_id, Role.MEMBER)
    join(shared, stranger_id, Role.MEMBER)
    session = ChatSession.objects.create(workspace=shared, user_id=user_id)
    assert list(ChatSession.objects.visible_to(caller)) == [session]
    assert not ChatSession.objects.visible_to(stranger).exists(), "a session is its person's, not the workspace's"
    membership.delete()
    assert not ChatSession.objects.visible_to(caller).exists()


def test_an_anonymous_or_inactive_user_is_no_caller() -> None:
    for user in (AnonymousUser(), get_user_model()(username="unsaved")):
        with pytest.raises(NotAuthenticated):
            caller_of(user)  # type: ignore[arg-type]
    _, user_id = person("ada")
    user = get_user_model().objects.get(pk=user_id)
    user.is_active = False
    with pytest.raises(NotAuthenticated):
        caller_of(user)


@pytest.mark.parametrize("key", ["", "x", "\0" * 10, "a" * 5000, "\udcff aaaaaaaa", "é" * 20])
def test_what_is_no_session_key_is_nobody(key: str) -> None:
    with pytest.raises(NotAuthenticated):
        from_session_key(key)
