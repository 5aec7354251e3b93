"""docs/embed-in-your-project.md, followed to the letter: a new project with its blocks in it serves a chat."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx2 as httpx
import psycopg
import pytest

from django_chain.embedded.process import bound
from tests.docs.pages import DOCS, ROOT, blocks, rows, section
from tests.support import services
from tests.support.client import Client
from tests.support.scripted_provider import ScriptedProvider
from tests.support.server import Server, rest
from tests.support.stage import eventually
from tests.support.worker import Worker

PAGE = DOCS / "embed-in-your-project.md"
DATABASE = "chain_embedded"


class Site(Server):
    """The project's own application under uvicorn."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        super().__init__(env)
        self._folder = folder

    def launch(self) -> Self:
        command = [sys.executable, "-m", "uvicorn", "mysite.asgi:application", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                bound([*command, "--ws", "websockets-sansio"]), cwd=self._folder, env=self._env, stdout=log, stderr=log
            )
        return self


@pytest.fixture(scope="module")
def site_env(server_env: dict[str, str], live_database: None) -> Iterator[dict[str, str]]:
    """A database of its own; the model is the scripted one, by the variable that OpenAI's SDK knows."""
    base, _, _ = server_env["DATABASE_URL"].rpartition("/")
    with psycopg.connect(services.environment()["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {DATABASE}")
        yield server_env | {
            "DATABASE_URL": f"{base}/{DATABASE}",
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "PYTHONPATH": str(ROOT),
        }
        connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


@pytest.fixture(scope="module")
def project(site_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `django-admin startproject` makes, with the page's blocks put in."""
    folder = tmp_path_factory.mktemp("project")
    started = [sys.executable, "-m", "django", "startproject", "mysite", str(folder)]
    subprocess.run(started, check=True, env={"PATH": os.environ["PATH"]})
    for block in blocks(PAGE, "python"):
        first, _, text = block.text.partition("\n")
        name = first.removeprefix("# ")
        if name != "manage.py shell":
            file = folder / name
            before = "" if "application =" in text else file.read_text() + "\n"
            file.write_text(before + text)
    return folder


def manage(project: Path, env: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=project, env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


#: A row that no signal saw, as it stands in a project that adds the apps later.
SOMEBODY_FROM_BEFORE = """
from django.contrib.auth import get_user_model
user = get_user_model()
user.objects.bulk_create([user(username="ada", email="ada@example.org")])
"""


async def test_a_new_project_with_the_blocks_of_the_page_serves_a_chat(
    project: Path, site_env: dict[str, str], provider: ScriptedProvider
) -> None:
    manage(project, site_env, "check")
    manage(project, site_env, "makemigrations", "--check", "--dry-run")
    manage(project, site_env, "migrate", "--verbosity", "0", "auth")
    manage(project, site_env, "migrate", "--verbosity", "0", "accounts", "0001")
    manage(project, site_env, "shell", "-c", SOMEBODY_FROM_BEFORE)
    manage(project, site_env, "migrate", "--verbosity", "0")
    token, session_id = _people(project, site_env)

    with Site(project, site_env) as site:
        assert [each["id"] for each in rest(site, token, "GET", "/sessions")["sessions"]] == [session_id]
        async with Client(site.socket_url(session_id), token=token) as client:
            row = await client.ask("hello there")
        assert row["status"] == "complete", site.log_text()
        assert "hello there" in row["content"]
        with Worker(site_env, folder=project):
            await _upload_and_find(site, token)
        ready = httpx.get(f"{site.url}/readyz").json()
    _check_the_parts_of_readyz(ready)


async def _upload_and_find(site: Server, token: str) -> None:
    """The server tells the worker, without beat: it knows the same Celery application."""
    body = {"source": "x200.md", "text": "The warranty of the X200 is 24 months."}
    (made,) = rest(site, token, "POST", "/collections/default/documents/text", json=body)["documents"]
    document = f"/documents/{made['document']['id']}"
    await eventually(lambda: rest(site, token, "GET", document)["state"] == "ready", deadline=30)
    found = rest(site, token, "POST", "/search", json={"query": "How long is the warranty?"})
    assert [hit["source"] for hit in found["hits"]] == ["x200.md"]


def _people(project: Path, env: dict[str, str]) -> tuple[str, str]:
    """A session and a token for somebody from before, by the page's own lines."""
    (from_code,) = [block.text for block in blocks(PAGE, "python") if block.text.startswith("# manage.py shell")]
    script = f"""
from django.contrib.auth import get_user_model
user = get_user_model().objects.get(username="ada")
{from_code}
print("made", token, session.id)
"""
    made = re.search(r"^made (\S+) (\S+)$", manage(project, env, "shell", "-c", script), re.MULTILINE)
    assert made is not None
    return made[1], made[2]


def _check_the_parts_of_readyz(ready: dict[str, str]) -> None:
    """docs/operations.md has the parts and the values of the answer."""
    written = {row[0].strip("`"): row[1] for row in rows(section("operations.md", "Health"))}
    assert set(written) == set(ready)
    for part, value in ready.items():
        assert f"`{value}`" in written[part]
