"""Who sees what: every REST route and every command of the protocol, for the owner, another person, a removed member
and nobody. The rows are made from the routers: a route or command without one fails."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2 as httpx
import pytest

from chat.protocol import COMMANDS
from django_chain.api import api
from kernel import database
from tests.conftest import Person, make_person
from tests.support.raw import Raw
from tests.support.server import Server


@dataclass
class Scene:
    """An owner's session with a message in it, and the people who look at it."""

    server: Server
    owner: Person
    session_id: str
    answer_id: str
    people: dict[str, Person | None]


WHO = ("owner", "other", "removed", "nobody")
SECRET = "the owner's own words"


@pytest.fixture
async def scene(server: Server, person: Person) -> Scene:
    removed = await database.run(make_person)
    session_id, theirs = person.new_session(server), removed.new_session(server)
    async with person.client(server, session_id) as client:
        answer = await client.ask(SECRET)
    await database.run(removed.user.memberships.all().delete)
    people = {"owner": person, "other": await database.run(make_person), "removed": removed, "nobody": None}
    assert theirs != session_id
    return Scene(server, person, session_id, answer["id"], people)


# REST ----------------------------------------------------------------------------------------------------------------

#: What each route answers to owner, other, removed, nobody. "{id}" is the owner's session.
ROUTES: dict[tuple[str, str], tuple[int, int, int, int]] = {
    ("GET", "/sessions"): (200, 200, 200, 401),
    ("POST", "/sessions"): (201, 201, 403, 401),
    ("GET", "/sessions/{uuidstr:session_id}"): (200, 404, 404, 401),
    ("GET", "/sessions/{uuidstr:session_id}/messages"): (200, 404, 404, 401),
    # They come with tokens here, and a token makes no other.
    ("POST", "/token"): (403, 403, 403, 401),
}


def routes() -> Iterator[tuple[str, str]]:
    for prefix, router in api._routers:
        for path, view in router.path_operations.items():
            for operation in view.operations:
                for method in operation.methods:
                    yield method, f"{prefix}{path}"


def test_every_route_has_a_row() -> None:
    assert set(routes()) == set(ROUTES)


async def test_each_route_shows_a_session_only_to_its_owner(scene: Scene) -> None:
    async with httpx.AsyncClient(base_url=f"{scene.server.url}/api/v1", timeout=10) as http:
        for (method, path), expected in ROUTES.items():
            for who, status in zip(WHO, expected, strict=True):
                person = scene.people[who]
                headers = {"Authorization": f"Bearer {person.token}"} if person else {}
                url = path.replace("{uuidstr:session_id}", scene.session_id)
                response = await http.request(
                    method, url, headers=headers, **({"json": {}} if method == "POST" else {})
                )
                assert response.status_code == status, (who, method, path, response.text)
                if who != "owner":
                    assert scene.session_id not in response.text
                    assert SECRET not in response.text


async def test_a_foreign_and_a_missing_session_look_the_same(scene: Scene) -> None:
    other = scene.people["other"]
    assert other is not None
    headers = {"Authorization": f"Bearer {other.token}"}
    async with httpx.AsyncClient(base_url=f"{scene.server.url}/api/v1", headers=headers, timeout=10) as http:
        for path in ("/sessions/{}", "/sessions/{}/messages"):
            foreign, missing = await http.get(path.format(scene.session_id)), await http.get(path.format(uuid4()))
            assert (foreign.status_code, foreign.json()) == (missing.status_code, missing.json())


# Sockets -------------------------------------------------------------------------------------------------------------

#: A command of each type, aimed at the owner's session, and what the owner gets for it at the session's socket.
VERBS: dict[str, tuple[dict[str, Any], str | None]] = {
    "hello": ({"seq": 0, "streams": {"{answer}": 0}}, "welcome"),
    "message.send": ({"id": "m1", "text": "more"}, "ack"),
    "turn.stop": ({"message_id": "{answer}", "id": "s1"}, "ack"),
    "seen": ({"frames": 1}, None),
    "ping": ({}, "pong"),
}


def verb(name: str, scene: Scene) -> dict[str, Any]:
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {filled(key): filled(item) for key, item in value.items()}
        return value.replace("{answer}", scene.answer_id) if isinstance(value, str) else value

    return {"type": name, **filled(VERBS[name][0])}


def test_every_command_has_a_row() -> None:
    assert {kind.__struct_config__.tag for kind in COMMANDS} == set(VERBS)


@pytest.mark.parametrize("name", VERBS)
async def test_each_command_works_for_the_owner(scene: Scene, name: str) -> None:
    async with Raw(scene.server.socket_url(scene.session_id)) as raw:
        token = {"token": scene.owner.token}
        if name == "hello":
            assert (await raw.ask({**verb(name, scene), **token}))["type"] == "welcome"
            return
        await raw.hello(scene.owner.token)
        await raw.send(verb(name, scene))
        expected = VERBS[name][1]
        if expected is not None:
            assert (await raw.next("ack", "error", "pong"))["type"] == expected
        assert await raw.alive()


@pytest.mark.parametrize("who", WHO[1:])
async def test_no_command_reaches_a_session_that_isnt_ones_own(scene: Scene, who: str) -> None:
    """Everything is sent behind a hello that fails, without waiting for its refusal."""
    person = scene.people[who]
    async with Raw(scene.server.socket_url(scene.session_id)) as raw:
        hello = verb("hello", scene) | ({"token": person.token} if person else {})
        for frame in (hello, *(verb(name, scene) for name in VERBS if name not in ("hello", "ping"))):
            await raw.send(frame)
        heard = []
        while not heard or heard[-1].get("code") not in ("not_found", "sign_in_required"):
            heard.append(await raw.next())
        assert {frame["type"] for frame in heard} == {"error"}
        assert await raw.closed() in (4001, 4003)
    rows = await history(scene)
    assert [row["content"] for row in rows if row["role"] == "USER"] == [SECRET]


@pytest.mark.parametrize("who", ["other"])
async def test_no_command_reaches_another_session_from_ones_own(scene: Scene, who: str) -> None:
    person = scene.people[who]
    assert person is not None
    async with Raw(scene.server.socket_url(person.new_session(scene.server))) as raw:
        welcome = await raw.ask(verb("hello", scene) | {"token": person.token})
        assert welcome["session"]["id"] != scene.session_id
        assert (await raw.ask(verb("turn.stop", scene)))["code"] == "not_found"
        await raw.send({"type": "seen", "streams": {scene.answer_id: 5}})
        ack = await raw.ask({"type": "message.send", "id": "m1", "text": "mine"}, "ack", "error")
        assert ack["type"] == "ack"
        while True:
            frame = await raw.next()
            assert SECRET not in str(frame)
            if frame["type"] == "message" and frame["message"]["status"] == "complete" and frame["seq"] > 2:
                break
    assert len(await history(scene)) == 2


async def history(scene: Scene) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {scene.owner.token}"}
    async with httpx.AsyncClient(headers=headers, timeout=10) as http:
        url = f"{scene.server.url}/api/v1/sessions/{scene.session_id}/messages"
        found: list[dict[str, Any]] = (await http.get(url)).json()["messages"]
        return found
