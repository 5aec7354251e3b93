"""`manage.py import_prompts`: what it reads, whose it becomes, what it says."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command

from accounts.access import workspace_for
from llm.models import Prompt
from tests.conftest import Person

SAY = {"langchain_type": "PromptTemplate", "template": "Say {question}"}
Import = Callable[..., str]


@pytest.fixture
def workspace_id(person: Person) -> UUID:
    return workspace_for(person.caller).pk


@pytest.fixture
def bring(person: Person, tmp_path: Path) -> Import:
    """Import what lies in tmp_path into the person's workspace; what it said."""

    def call(*paths: object, fails: bool = False, **options: Any) -> str:
        out, err = StringIO(), StringIO()
        whose = {} if "workspace" in options else {"user": person.user.username}
        options = {**whose, "stdout": out, "stderr": err, **options}
        named = [str(path) for path in paths or [tmp_path]]
        if fails:
            with pytest.raises(CommandError) as failed:
                call_command("import_prompts", *named, **options)
            err.write(str(failed.value))
            assert failed.value.returncode == 1
        else:
            call_command("import_prompts", *named, **options)
        return out.getvalue() + err.getvalue()

    return call


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def rows(workspace_id: UUID) -> list[tuple[str, int, bool]]:
    found = Prompt.objects.filter(workspace_id=workspace_id).order_by("name", "version")
    return list(found.values_list("name", "version", "is_active"))


def test_every_shape_of_a_file_is_read(bring: Import, tmp_path: Path, workspace_id: UUID) -> None:
    write(tmp_path / "one.json", {"name": "support", "prompt_template": SAY, "note": "why"})
    write(tmp_path / "deep/greeting.json", SAY)
    fields = {"name": "peer", "prompt_template": SAY, "version": 7, "is_active": True, "input_variables": None}
    write(
        tmp_path / "dump.json", [{"model": "django_chain.prompt", "pk": "x", "fields": fields}, {**fields, "name": "z"}]
    )
    write(tmp_path / "notes.txt", "no prompt")

    assert bring() == "4 added\n"
    assert rows(workspace_id) == [(name, 1, False) for name in ("greeting", "peer", "support", "z")]
    assert Prompt.objects.get(workspace_id=workspace_id, name="support").note == "why"


def test_unchanged_content_makes_no_version_and_changed_content_one(
    bring: Import, tmp_path: Path, workspace_id: UUID
) -> None:
    file = write(tmp_path / "one.json", [{"name": "a", "prompt_template": SAY}, {"name": "b", "prompt_template": SAY}])
    assert bring(file, tmp_path) == "2 added\n"
    assert bring(file) == "2 unchanged\n"
    write(file, [{"name": "a", "prompt_template": {**SAY, "template": "x"}}, {"name": "b", "prompt_template": SAY}])

    assert bring(file, activate=True) == "1 changed, 1 unchanged\n"
    assert rows(workspace_id) == [("a", 1, False), ("a", 2, True), ("b", 1, True)]


def test_a_dry_run_says_it_and_saves_nothing(bring: Import, tmp_path: Path, workspace_id: UUID) -> None:
    write(tmp_path / "one.json", {"name": "a", "prompt_template": SAY})

    assert bring(dry_run=True, activate=True) == "1 added (nothing was saved)\n"
    assert rows(workspace_id) == []


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([{"name": "a", "prompt_template": SAY}, {"name": "b"}], "[1].prompt_template"),
        ([{"name": "a", "prompt_template": SAY}, "text"], "[1].a prompt is an object"),
        ({"prompt_template": SAY}, "name"),
        ({"name": 3, "prompt_template": SAY}, "name"),
        ({"name": "a", "prompt_template": SAY, "templat": 1}, "templat: unknown key"),
        ({"name": "a", "prompt_template": {**SAY, "template": "{a.b}"}}, "'a.b'"),
        ({"name": "a", "prompt_template": SAY, "input_variables": ["b"]}, "input_variables: 'b'"),
        ({"name": "a", "prompt_template": SAY, "input_variables": "b"}, "input_variables"),
        ({"name": "a", "prompt_template": SAY, "note": 3}, "note"),
        ({"model": "django_chain.workflow", "fields": {}}, "model"),
        ('{"name": \n oops}', "line 2"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_bad_file_is_named_with_its_key_and_brings_nothing(
    bring: Import, tmp_path: Path, workspace_id: UUID, content: Any, fault: str
) -> None:
    bad = write(tmp_path / "bad.json", content)
    write(tmp_path / "good.json", {"name": "good", "prompt_template": SAY})

    said = bring(fails=True)
    assert f"{bad}: " in said
    assert fault in said
    assert "1 added, 1 failed" in said
    assert rows(workspace_id) == [("good", 1, False)]


def test_it_says_which_path_or_workspace_does_not_exist(bring: Import, tmp_path: Path) -> None:
    assert "nowhere" in bring(tmp_path / "nowhere.json", fails=True)
    assert "'nobody'" in bring(fails=True, user="nobody")
    assert "'7'" in bring(fails=True, workspace="7")
    assert bring(tmp_path / "*.json", fails=True)
    assert bring() == "No prompts found.\n"


def test_a_workspace_is_named_by_its_id(bring: Import, tmp_path: Path, workspace_id: UUID) -> None:
    write(tmp_path / "one.json", {"name": "a", "prompt_template": SAY})

    assert bring(tmp_path / "*.json", workspace=str(workspace_id)) == "1 added\n"
    assert rows(workspace_id) == [("a", 1, False)]
