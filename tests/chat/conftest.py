"""The protocol suite's servers: uvicorn and Daphne, side by side, with the same settings."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.test import Client as Browser

from tests.conftest import Person, make_person, side_by_side
from tests.support.raw import Raw
from tests.support.server import Server

KINDS = ("uvicorn", "daphne")


@pytest.fixture(scope="module")
def chat_options() -> dict[str, Any]:
    """What CHAT settings a module's servers have; a module may override this."""
    return {"COMMANDS_PER_MINUTE": 10_000_000, "RECONNECT_SPREAD": 0.2, "REPAIR_SECONDS": 0.3}


@pytest.fixture(scope="module")
def both(live_database: None, server_env: dict[str, str], chat_options: dict[str, Any]) -> Iterator[dict[str, Server]]:
    env = server_env | {"DJANGO_CHAIN_OVERRIDES": json.dumps({"CHAT": chat_options})}
    with side_by_side(*(Server(env, kind=kind) for kind in KINDS)) as started:
        yield dict(zip(KINDS, started, strict=True))


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, both: dict[str, Server]) -> Iterator[Server]:
    """Each of the two; whatever a test does to it, its log gets no traceback."""
    found = both[request.param]
    before = len(found.log_text())
    yield found
    assert "Traceback" not in found.log_text()[before:]


@pytest.fixture
async def raw(server: Server, person: Person) -> Any:
    """A socket that was greeted, at a new session."""
    async with Raw(server.socket_url(person.new_session(server))) as socket:
        assert (await socket.hello(person.token))["type"] == "welcome"
        yield socket


@pytest.fixture
def other(live_database: None) -> Person:
    """Somebody else."""
    return make_person()


@pytest.fixture
def cookie(person: Person) -> tuple[str, str]:
    """The header that the person's signed-in browser sends."""
    return cookie_of(person)


def cookie_of(person: Person) -> tuple[str, str]:
    """Sign a browser in; the header it sends from then on. Database work."""
    browser = Browser()
    browser.force_login(person.user)
    return ("Cookie", f"{settings.SESSION_COOKIE_NAME}={browser.session.session_key}")
