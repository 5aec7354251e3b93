"""How often a person may search and upload: counted over all processes, told with the time to wait."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kernel import database
from tests.conftest import side_by_side
from tests.support import stage
from tests.support.server import Server, free_port
from tests.support.stage import eventually
from tests.vectorstore.rest.conftest import Place
from vectorstore.models import Document

HERE = "/collections/default/documents"
LIMITS = {"SEARCHES_PER_MINUTE": 20, "UPLOADS_PER_MINUTE": 6}


@pytest.fixture(scope="module")
def limited(live_database: None, server_env: dict[str, str]) -> Iterator[list[Server]]:
    env = server_env | stage.settings(VECTOR_STORE=LIMITS)
    with side_by_side(Server(env), Server(env)) as started:
        yield list(started)


@pytest.fixture
def both(place: Place, limited: list[Server]) -> list[Place]:
    """The place at two processes with low limits."""
    return [replace(place, server=server) for server in limited]


def search(place: Place, who: str = "viewer") -> Any:
    return place.ask(who, "POST", "/search", json={"query": "x", "workspace": str(place.workspace)})


def upload(place: Place, count: int, who: str = "member") -> Any:
    files = [("files", (f"{n}.md", f"text {n}".encode())) for n in range(count)]
    return place.ask(who, "POST", HERE, files=files)


async def test_searches_of_a_person_are_counted_over_all_processes(both: list[Place]) -> None:
    answers = [search(both[n % 2]) for n in range(24)]
    statuses = [each.status_code for each in answers]
    assert statuses[:20] == [200] * 20
    refused = next(each for each in answers if each.status_code == 429)
    assert refused.json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 4
    assert search(both[0], "member").status_code == 200
    await eventually(lambda: search(both[1]).status_code == 200)


async def test_each_file_of_an_upload_counts_and_none_is_taken_in_beyond(both: list[Place], place: Place) -> None:
    assert upload(both[0], 4).status_code == 202
    refused = upload(both[1], 4)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) <= 20
    assert await database.run(Document.objects.filter(workspace_id=place.workspace).count) == 4
    # Two were left, and still are.
    for n in range(2):
        text = both[0].ask("member", "POST", f"{HERE}/text", json={"source": f"a{n}", "text": f"x{n}"})
        assert text.status_code == 202
    url = both[1].ask("member", "POST", f"{HERE}/url", json={"url": "https://example.org/a"})
    assert url.status_code == 429


async def test_more_files_than_a_minute_allows_go_when_nothing_else_went(both: list[Place]) -> None:
    assert upload(both[0], 7, "admin").status_code == 202
    assert upload(both[0], 1, "admin").status_code == 429


async def test_who_may_not_write_is_told_so_and_not_counted(both: list[Place]) -> None:
    assert {upload(both[0], 1, "viewer").status_code for _ in range(8)} == {403}


async def test_without_redis_nobody_is_limited(place: Place, spawn: Any) -> None:
    env = stage.settings(VECTOR_STORE=LIMITS) | {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    alone = replace(place, server=spawn(env=env))
    assert {search(alone).status_code for _ in range(25)} == {200}
