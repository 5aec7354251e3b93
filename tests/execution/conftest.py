"""Workflows run over REST and sockets, on uvicorn and on Daphne; after each test no row of its person is open."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import pytest

from llm.models import InteractionLog
from tests.chat.conftest import both, chat_options, cookie, other, server  # noqa: F401  fixtures
from tests.conftest import Person
from tests.support.server import Server

Api = Callable[..., httpx.Response]


@pytest.fixture
def api(server: Server, person: Person) -> Iterator[Api]:  # noqa: F811
    with httpx.Client(timeout=20) as client:

        def call(method: str, path: str, *, at: Server = server, by: Person = person, **more: Any) -> httpx.Response:
            headers = {"Authorization": f"Bearer {by.token}"}
            return client.request(method, f"{at.url}/api/v1{path}", headers=headers, **more)

        yield call
    closed_rows(person)


@pytest.fixture
def flow(api: Api) -> str:
    """A workflow with one model call."""
    made = api("POST", "/workflows", json={"name": "flow", "workflow_definition": [{"type": "llm"}]})
    assert made.status_code == 201, made.text
    return "flow"


def closed_rows(person: Person, *, within: float = 5) -> list[InteractionLog]:
    """The person's rows, once none is open."""
    until = time.monotonic() + within
    rows = InteractionLog.objects.filter(user=person.user).order_by("id")
    while rows.filter(status="started").exists():
        assert time.monotonic() < until, "a row is open"
        time.sleep(0.02)
    return list(rows)
