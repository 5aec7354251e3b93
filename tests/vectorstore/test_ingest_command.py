"""`manage.py ingest`: what it finds, whose it becomes, what it says."""

from io import StringIO
from pathlib import Path
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from vectorstore.models import Document

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def user():
    # Those of tests through live servers share this database.
    get_user_model().objects.all().delete()
    return get_user_model().objects.create_user("reader")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings) -> Path:
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"EMBEDDINGS": {"PROVIDER": "fake", "DIMENSION": 16}}
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.md").write_text("# A\n\nabout a")
    (folder / "deep" / "b.txt").write_text("about b")
    (folder / ".hidden").write_text("not this")
    return tmp_path


def ingest(*paths: str, **options) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("ingest", *paths, stdout=out, stderr=err, **options)
    return out.getvalue().strip(), err.getvalue().strip()


def sources() -> list[str]:
    return sorted(Document.objects.values_list("source", flat=True))


def test_a_folder_is_indexed_with_all_below_it_in_the_only_users_workspace(user):
    assert ingest("docs") == ("2 added", "")
    assert sources() == ["docs/a.md", "docs/deep/b.txt"]
    assert {document.workspace for document in Document.objects.all()} == {user.personal_workspace}


def test_a_second_time_nothing_changes_and_a_change_is_an_update(user, here):
    ingest("docs")
    assert ingest("docs/") == ("2 unchanged", "")
    assert ingest(str(here / "docs" / "a.md")) == ("1 unchanged", "")
    (here / "docs" / "a.md").write_text("# A\n\nabout something else")
    assert ingest("docs") == ("1 updated, 1 unchanged", "")


def test_globs_and_repeated_paths_name_each_file_once(user):
    assert ingest("docs/**/*.txt", "docs/deep", "docs/deep/b.txt") == ("1 added", "")


def test_a_picture_in_a_folder_is_skipped_and_a_named_one_is_a_failure(user, here):
    (here / "docs" / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out, err = ingest("docs")
    assert out == "2 added, 1 skipped"
    assert err.startswith("skipped: docs/logo.png is a PNG picture; text, Markdown, HTML, PDF, DOCX, CSV, JSON and")
    with pytest.raises(CommandError, match="1 of 1 files could not be indexed"):
        ingest("docs/logo.png")


def test_one_bad_file_does_not_keep_the_others_out(user, here):
    (here / "docs" / "0.pdf").write_bytes(b"%PDF-1.7 broken")
    with pytest.raises(CommandError, match="1 of 3 files"):
        ingest("docs")
    states = dict(Document.objects.values_list("source", "state"))
    assert states == {"docs/0.pdf": "failed", "docs/a.md": "ready", "docs/deep/b.txt": "ready"}


@pytest.mark.parametrize("path", ["nowhere", "nowhere/*.md", "docs/*.pdf"])
def test_a_missing_path_is_an_error_before_anything_is_indexed(user, path):
    with pytest.raises(CommandError, match=r"There is no file or folder"):
        ingest("docs", path)
    assert sources() == []


def test_a_folder_without_files_says_so(user, here):
    (here / "empty").mkdir()
    assert ingest("empty") == ("No files found.", "")


def test_whose_documents_they_are_must_be_clear(here):
    with pytest.raises(CommandError, match=r"There are 0 users.*createsuperuser"):
        ingest("docs")
    first, second = (get_user_model().objects.create_user(name) for name in ("first", "second"))
    with pytest.raises(CommandError, match=r"There are 2 users.*--user NAME"):
        ingest("docs")
    ingest("docs", user="second")
    ingest("docs", workspace=str(first.personal_workspace.id))
    owners = set(Document.objects.values_list("workspace", flat=True))
    assert owners == {first.personal_workspace.id, second.personal_workspace.id}


@pytest.mark.parametrize("options", [{"user": "nobody"}, {"workspace": "x"}, {"workspace": str(uuid4())}])
def test_an_unknown_user_or_workspace_is_named(user, options):
    with pytest.raises(CommandError, match=f"no (user|workspace) '{next(iter(options.values()))}'"):
        ingest("docs", **options)


def test_a_collection_of_another_model_is_refused_with_the_fix(user, settings):
    ingest("docs")
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"EMBEDDINGS": {"PROVIDER": "fake", "DIMENSION": 32}}
    with pytest.raises(CommandError, match="holds vectors of fake"):
        ingest("docs")
    assert ingest("docs", collection="new") == ("2 added", "")


def test_links_that_lead_in_a_circle_are_failures_beside_the_others(user, here):
    (here / "docs" / "one.txt").symlink_to("two.txt")
    (here / "docs" / "two.txt").symlink_to("one.txt")
    with pytest.raises(CommandError, match="2 of 4 files"):
        ingest("docs")
    assert sources() == ["docs/a.md", "docs/deep/b.txt"]


def test_an_empty_file_in_a_folder_is_skipped_and_a_named_one_is_a_failure(user, here):
    (here / "docs" / "__init__.py").write_text("\n")
    assert ingest("docs") == ("2 added, 1 skipped", "skipped: docs/__init__.py is empty.")
    with pytest.raises(CommandError, match="1 of 1 files"):
        ingest("docs/__init__.py")
    assert sources() == ["docs/a.md", "docs/deep/b.txt"]


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_argument_is_not_the_current_folder(user, path):
    with pytest.raises(CommandError, match="empty name"):
        ingest(path)
    assert sources() == []


@pytest.mark.parametrize("name", ["x" * 201, " "])
def test_a_collection_without_a_proper_name_is_not_made(user, name):
    with pytest.raises(CommandError, match="1 to 200 characters"):
        ingest("docs", collection=name)
    assert sources() == []


def test_a_files_name_cannot_command_the_terminal(user, here):
    (here / "docs" / "\x1b[31mcopy.txt").write_text("about b")
    ingest("docs/deep")
    _, told = ingest("docs/\x1b[31mcopy.txt")
    assert "same content as" in told
    assert "\x1b" not in told
