"""Versions of prompts and workflows: which one answers, how to go back, and that none ever changes."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connections

from accounts.access import workspace_for
from accounts.models import Workspace
from kernel import database
from kernel.errors import Conflict, Invalid, NotFound, TooLarge
from llm import configuration, generation, signals, versions
from llm.configuration import Configuration
from llm.errors import PromptInvalid, WorkflowInvalid
from llm.models import Activation, ModelConfig, Prompt, PromptSplit, Workflow
from tests.conftest import Person

CONTENT: dict[type[Any], dict[str, Any]] = {
    Prompt: {"prompt_template": {"langchain_type": "PromptTemplate", "template": "Say {question}"}},
    Workflow: {"workflow_definition": [{"type": "prompt"}]},
}
BOTH = pytest.mark.parametrize("kind", [Prompt, Workflow])


@pytest.fixture
def workspace(person: Person) -> Workspace:
    return workspace_for(person.caller)


@pytest.fixture
def told() -> Iterator[list[tuple[str, Any]]]:
    """The signals of versions, as (name, version)."""
    heard: list[tuple[str, Any]] = []
    names = {getattr(signals, name): name for name in vars(signals) if name.startswith(("prompt_", "workflow_"))}

    def receive(signal: Any, version: int | None, **_: Any) -> None:
        heard.append((names[signal], version))

    for signal in names:
        signal.connect(receive)
    yield heard
    for signal in names:
        signal.disconnect(receive)


def make(kind: Any, workspace: Workspace, *, activate: bool = True, **options: Any) -> Any:
    return versions.create(
        kind, workspace.pk, "support", **{"user_id": None, "activate": activate, **CONTENT[kind], **options}
    )


def active(kind: Any, workspace: Workspace) -> int | None:
    rows = kind.objects.filter(workspace=workspace, name="support", is_active=True)
    return rows.values_list("version", flat=True).get() if rows else None


def back(kind: Any, workspace: Workspace) -> int:
    return int(versions.roll_back(kind, workspace.pk, "support", user_id=None).version)


# Create, activate, go back -------------------------------------------------------------------------------------------


@BOTH
def test_versions_are_numbered_and_one_is_active(kind: Any, workspace: Workspace) -> None:
    rows = [make(kind, workspace, activate=activate) for activate in (True, False, True)]

    assert [row.version for row in rows] == [1, 2, 3]
    assert active(kind, workspace) == 3
    versions.activate(rows[1], user_id=None)
    assert active(kind, workspace) == 2


@BOTH
def test_each_roll_back_goes_further_until_there_is_nothing(kind: Any, workspace: Workspace) -> None:
    for _ in range(3):
        make(kind, workspace)

    assert [back(kind, workspace), back(kind, workspace)] == [2, 1]
    assert active(kind, workspace) == 1
    with pytest.raises(Conflict, match="support"):
        back(kind, workspace)
    assert active(kind, workspace) == 1


def test_a_roll_back_undoes_what_was_activated_last_not_the_highest_number(workspace: Workspace) -> None:
    first, _, third = (make(Prompt, workspace) for _ in range(3))
    versions.activate(first, user_id=None)
    versions.activate(third, user_id=None)

    assert [back(Prompt, workspace) for _ in range(4)] == [1, 3, 2, 1]


def test_after_a_roll_back_a_new_version_can_be_rolled_back_to_the_same(workspace: Workspace) -> None:
    make(Prompt, workspace)
    make(Prompt, workspace)
    assert back(Prompt, workspace) == 1
    make(Prompt, workspace)

    assert back(Prompt, workspace) == 1


def test_a_deactivated_name_is_rolled_back_to_what_was_active(workspace: Workspace) -> None:
    make(Prompt, workspace)
    make(Prompt, workspace).deactivate()
    assert active(Prompt, workspace) is None

    assert [back(Prompt, workspace), back(Prompt, workspace)] == [2, 1]


def test_a_deleted_version_is_skipped(workspace: Workspace) -> None:
    rows = [make(Prompt, workspace) for _ in range(3)]
    rows[1].delete()

    assert back(Prompt, workspace) == 1


def test_deactivating_what_is_not_active_is_not_found(workspace: Workspace) -> None:
    with pytest.raises(NotFound, match="'support'"):
        versions.deactivate(Workflow, workspace.pk, "support", user_id=None)


def test_the_history_says_who_did_what(workspace: Workspace, person: Person) -> None:
    row = make(Prompt, workspace, activate=False, user_id=person.user.pk)
    versions.activate(row, user_id=person.user.pk)
    versions.activate(row, user_id=person.user.pk)  # again: nothing happens
    versions.deactivate(Prompt, workspace.pk, "support", user_id=None)

    found = [(each.action, each.version, each.user) for each in versions.history(Prompt, workspace.pk, "support")]
    assert found == [("deactivated", 1, None), ("activated", 1, person.user), ("created", 1, person.user)]
    assert not versions.history(Workflow, workspace.pk, "support").exists()


def test_signals_are_sent_after_the_commit_and_not_of_what_failed(
    workspace: Workspace, told: list[tuple[str, Any]]
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("a receiver's own bug")

    signals.prompt_created.connect(fail)
    try:
        make(Prompt, workspace)
        make(Prompt, workspace)
        back(Prompt, workspace)
        versions.split(workspace.pk, "support", {1: 50, 2: 50}, user_id=None)
        make(Workflow, workspace).deactivate()
        with pytest.raises(PromptInvalid):
            make(Prompt, workspace, prompt_template={})
    finally:
        signals.prompt_created.disconnect(fail)

    assert told == [
        ("prompt_created", 1),
        ("prompt_activated", 1),
        ("prompt_created", 2),
        ("prompt_activated", 2),
        ("prompt_rolled_back", 1),
        ("prompt_split", None),
        ("workflow_created", 1),
        ("workflow_activated", 1),
        ("workflow_deactivated", 1),
    ]


def test_every_change_is_seen_by_the_next_run(workspace: Workspace) -> None:
    first = make(Prompt, workspace)
    second = make(Prompt, workspace, activate=False)
    changes: list[Callable[[], object]] = [
        lambda: versions.activate(second, user_id=None),
        lambda: versions.roll_back(Prompt, workspace.pk, "support", user_id=None),
        lambda: versions.split(workspace.pk, "support", {1: 100}, user_id=None),
        lambda: versions.deactivate(Prompt, workspace.pk, "support", user_id=None),
        first.activate,
    ]
    for change in changes:
        before = generation.of(workspace.pk)
        change()
        assert generation.of(workspace.pk) > before


# Side by side --------------------------------------------------------------------------------------------------------


@BOTH
def test_versions_made_at_once_get_numbers_of_their_own(kind: Any, workspace: Workspace) -> None:
    def one(_: int) -> int:
        try:
            return int(make(kind, workspace).version)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(one, range(24)))

    assert sorted(numbers) == list(range(1, 25))
    assert active(kind, workspace) is not None
    actions = Counter(versions.history(kind, workspace.pk, "support").values_list("action", flat=True))
    assert actions == {"created": 24, "activated": 24}


def test_activations_and_roll_backs_at_once_leave_one_active_version(workspace: Workspace) -> None:
    rows = [make(Prompt, workspace) for _ in range(4)]

    def one(number: int) -> None:
        try:
            if number % 3:
                versions.activate(Prompt.objects.get(pk=rows[number % 4].pk), user_id=None)
            else:
                back(Prompt, workspace)
        except Conflict:
            pass  # nothing left to go back to
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(32)))

    latest = versions.history(Prompt, workspace.pk, "support").first()
    assert latest is not None
    assert active(Prompt, workspace) == latest.version


# Splits --------------------------------------------------------------------------------------------------------------


def test_a_split_gives_its_shares_and_a_session_always_the_same() -> None:
    shares = {1: 50, 2: 30, 3: 20}
    split = Configuration(workspace_id=uuid4(), generation=0, splits={"support": shares})
    units = [UUID(int=number) for number in range(10_000)]
    given = [split.split_version("support", unit) for unit in units]

    counted = Counter(given)
    for version, share in shares.items():
        assert abs(counted[version] / 100 - share) < 1.5
    again = Configuration(workspace_id=uuid4(), generation=7, splits={"support": {3: 20, 2: 30, 1: 50}})
    assert [again.split_version("support", unit) for unit in units] == given
    # Another prompt's split is drawn anew, so that two tests don't measure the same people.
    other = Configuration(workspace_id=uuid4(), generation=0, splits={"other": shares})
    assert 0.3 < sum(a == other.split_version("other", unit) for a, unit in zip(given, units, strict=True)) / 1e4 < 0.5


async def test_a_split_is_what_the_configuration_reads(workspace: Workspace) -> None:
    def prepare() -> None:
        make(Prompt, workspace)
        make(Prompt, workspace, activate=False)
        versions.split(workspace.pk, "support", {1: 40, 2: 60}, user_id=None)

    await database.run(prepare)
    assert (await configuration.current(workspace.pk)).splits == {"support": {1: 40, 2: 60}}


@pytest.mark.parametrize(
    ("shares", "fault"),
    [
        ({1: 50, 2: 49}, "99"),
        ({1: 50, 3: 50}, "no version 3"),
        ({1: 0, 2: 100}, "version 1"),
        ({1: 150, 2: -50}, "version 1"),
        ({1: True, 2: 99}, "version 1"),
        ({1: 50.0, 2: 50}, "version 1"),
    ],
)
def test_shares_are_checked(workspace: Workspace, shares: Any, fault: str) -> None:
    make(Prompt, workspace)
    make(Prompt, workspace)
    with pytest.raises(Invalid, match=fault):
        versions.split(workspace.pk, "support", shares, user_id=None)
    assert not PromptSplit.objects.filter(workspace=workspace).exists()


def test_a_split_ends_when_a_version_is_activated_or_by_itself(workspace: Workspace) -> None:
    make(Prompt, workspace)
    second = make(Prompt, workspace)
    splits = PromptSplit.objects.filter(workspace=workspace)
    for end in (
        lambda: versions.activate(second, user_id=None),
        lambda: versions.split(workspace.pk, "support", {}, user_id=None),
        lambda: versions.roll_back(Prompt, workspace.pk, "support", user_id=None),
        lambda: make(Prompt, workspace),
        lambda: versions.deactivate(Prompt, workspace.pk, "support", user_id=None),
    ):
        versions.split(workspace.pk, "support", {1: 50, 2: 50}, user_id=None)
        versions.split(workspace.pk, "support", {1: 90, 2: 10}, user_id=None)
        assert splits.get().shares == {"1": 90, "2": 10}
        end()
        assert not splits.exists()


def test_rolling_back_a_split_leaves_the_version_that_was_active(workspace: Workspace) -> None:
    make(Prompt, workspace)
    make(Prompt, workspace)
    versions.split(workspace.pk, "support", {1: 50, 2: 50}, user_id=None)

    assert [back(Prompt, workspace), back(Prompt, workspace)] == [2, 1]


async def test_a_refused_version_leaves_nothing_behind_that_hides_the_next_change(workspace: Workspace) -> None:
    def refused_then_split() -> None:
        make(Prompt, workspace)
        with pytest.raises(WorkflowInvalid, match="'nobody'"):
            make(Workflow, workspace, workflow_definition=[{"type": "llm", "model": "nobody"}])
        versions.split(workspace.pk, "support", {1: 100}, user_id=None)

    await configuration.current(workspace.pk)
    await database.run(refused_then_split)
    assert (await configuration.current(workspace.pk)).splits == {"support": {1: 100}}


def test_a_workflow_may_name_a_model_of_its_workspace(workspace: Workspace) -> None:
    other = Workspace.objects.create(name="other")
    ModelConfig.objects.create(workspace=workspace, alias="house", provider="fake", model_name="fake")
    steps = {"workflow_definition": [{"type": "llm", "model": "house"}]}

    assert make(Workflow, workspace, **steps).version == 1
    with pytest.raises(WorkflowInvalid, match=r"^steps\[0\]\.model"):
        make(Workflow, other, **steps)


# What never changes --------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("field", ["name", "version", "content", "workspace"])
def test_a_version_can_not_be_changed(kind: Any, workspace: Workspace, field: str) -> None:
    row = make(kind, workspace)
    stored = next(iter(CONTENT[kind]))
    name = stored if field == "content" else field
    value: Any = {
        "name": "other",
        "version": 7,
        "content": {"langchain_type": "PromptTemplate", "template": "x"} if kind is Prompt else [{"type": "llm"}],
        "workspace": Workspace.objects.create(name="other"),
    }[field]
    setattr(row, name, value)
    rows = kind.objects.filter(pk=row.pk)
    for change in (
        row.save,
        lambda: row.save(update_fields=[name]),
        lambda: rows.update(**{name: value}),
        lambda: kind.objects.bulk_update([row], [name]),
    ):
        with pytest.raises(Conflict, match="create_new_version"):
            change()
    fresh = rows.get()
    assert (fresh.name, fresh.version, getattr(fresh, stored)) == ("support", 1, CONTENT[kind][stored])


@BOTH
def test_the_note_and_being_active_can_be_saved(kind: Any, workspace: Workspace) -> None:
    first, second = make(kind, workspace), make(kind, workspace)
    first.refresh_from_db()
    first.note, first.is_active = "calmer", True
    first.save()
    assert active(kind, workspace) == 1
    assert kind.objects.get(pk=first.pk).note == "calmer"
    second.refresh_from_db()
    assert not second.is_active
    first.is_active = False
    first.save(update_fields=["is_active"])
    assert active(kind, workspace) is None
    assert back(kind, workspace) == 1


def test_rows_made_by_the_orm_are_checked_and_part_of_the_history(workspace: Workspace) -> None:
    content = {"workspace": workspace, "name": "support", **CONTENT[Prompt]}
    Prompt.objects.create(**content, is_active=True)
    with pytest.raises(Conflict, match="create_new_version"):
        Prompt.objects.create(**content)
    Prompt.objects.create(**content, version=2, is_active=True)
    third = Prompt.create_new_version("support", workspace=workspace, **CONTENT[Prompt])

    assert (third.version, active(Prompt, workspace)) == (3, 3)
    assert [back(Prompt, workspace), back(Prompt, workspace)] == [2, 1]
    assert Activation.objects.filter(workspace=workspace, action="created").count() == 3


@pytest.mark.parametrize("way", ["create", "bulk_create", "new_version"])
def test_a_faulty_row_is_not_saved_by_any_way(workspace: Workspace, way: str) -> None:
    def save(kind: Any, **content: Any) -> None:
        if way == "create":
            kind.objects.create(workspace=workspace, name="support", **content)
        elif way == "bulk_create":
            kind.objects.bulk_create([kind(workspace=workspace, name="support", **content)])
        else:
            make(kind, workspace, **content)

    with pytest.raises(WorkflowInvalid, match=r"^steps\[1\]"):
        save(Workflow, workflow_definition=[{"type": "llm"}, {"type": "nothing"}])
    messages = [{"role": "user", "content": "{a.b}"}]
    with pytest.raises(PromptInvalid, match=r"^messages\[0\]: 'a.b'"):
        save(Prompt, prompt_template={"langchain_type": "ChatPromptTemplate", "messages": messages})
    with pytest.raises(Invalid, match="NUL"):
        save(Prompt, prompt_template={"langchain_type": "PromptTemplate", "template": "a\0"})
    with pytest.raises(Invalid, match="surrogate"):
        save(Prompt, prompt_template={"langchain_type": "PromptTemplate", "template": "\ud800"})
    with pytest.raises(Invalid, match="plain JSON"):
        save(Prompt, prompt_template={"langchain_type": "PromptTemplate", "template": object()})
    with pytest.raises(TooLarge):
        save(Prompt, prompt_template={"langchain_type": "PromptTemplate", "template": "x" * 1_000_001})
    assert not Prompt.objects.filter(workspace=workspace).exists()
    assert not Workflow.objects.filter(workspace=workspace).exists()


@pytest.mark.parametrize("name", ["", "  ", "x" * 256])
def test_a_name_has_a_length(workspace: Workspace, name: str) -> None:
    with pytest.raises(Invalid, match="name"):
        versions.create(Prompt, workspace.pk, name, user_id=None, **CONTENT[Prompt])


# Differences ---------------------------------------------------------------------------------------------------------


def test_a_difference_is_a_unified_diff_of_the_content(workspace: Workspace) -> None:
    first = make(Prompt, workspace)
    second = make(Prompt, workspace, note="another note is no difference")
    third = make(
        Prompt, workspace, prompt_template={"langchain_type": "PromptTemplate", "template": "Shout {question}"}
    )

    assert versions.diff(first, second) == ""
    lines = versions.diff(first, third).split("\n")
    assert lines[:2] == ["--- support v1", "+++ support v3"]
    assert [line for line in lines[2:] if line[0] in "+-"] == [
        '-    "template": "Say {question}"',
        '+    "template": "Shout {question}"',
    ]
