"""Models over REST, on two servers: who may change them, what is shown, and that every process follows at once."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import pytest

from accounts.models import Membership, Role, Workspace
from llm.models import InteractionLog, ModelConfig
from tests.conftest import Person
from tests.support.scripted_provider import ScriptedProvider, status
from tests.support.server import Server


@pytest.fixture
def server(servers: tuple[Server, Server]) -> Server:
    return servers[0]


Api = Callable[..., httpx.Response]


@pytest.fixture
def api(server: Server, person: Person) -> Iterator[Api]:
    """The person's calls: `api("PUT", "/models/default", json=…)`; another server or person by `at` and `by`."""
    with httpx.Client(timeout=20) as client:

        def call(method: str, path: str, *, at: Server = server, by: Person = person, **more: Any) -> httpx.Response:
            headers = {"Authorization": f"Bearer {by.token}"}
            return client.request(method, f"{at.url}/api/v1{path}", headers=headers, **more)

        yield call


def shown(api: Api, alias: str = "default", **more: Any) -> dict[str, Any]:
    response = api("GET", "/models", **more)
    assert response.status_code == 200, response.text
    return next(model for model in response.json()["models"] if model["alias"] == alias)


async def test_a_change_is_used_by_the_next_message_of_every_process(
    servers: tuple[Server, Server], person: Person, api: Api, provider: ScriptedProvider
) -> None:
    sessions = [person.new_session(server) for server in servers]

    async def asked_model(number: int) -> Any:
        async with person.client(servers[number], sessions[number]) as client:
            assert (await client.ask(f"[[model-{number}]] hello"))["status"] == "complete"
        return provider.exchanges(f"model-{number}")[-1].body["model"]

    assert [await asked_model(number) for number in (0, 1)] == ["scripted", "scripted"]
    for changed in ("first", "second"):
        assert api("PUT", "/models/default", json={"model": changed}).status_code == 200
        begun = time.monotonic()
        assert [await asked_model(number) for number in (1, 0)] == [changed, changed]
        assert time.monotonic() - begun < 2
    assert api("DELETE", "/models/default").status_code == 204
    assert [await asked_model(number) for number in (1, 0)] == ["scripted", "scripted"]


def test_an_alias_is_shown_without_its_secrets(api: Api, servers: tuple[Server, Server]) -> None:
    before = shown(api)
    assert (before["origin"], before["model"], before["is_default"]) == ("settings", "scripted", True)
    assert before["base_url"] == ""

    put = api("PUT", "/models/default", json={"key": "sk-very-secret", "options": {"temperature": 0.3}})

    assert put.status_code == 200, put.text
    listed = api("GET", "/models", at=servers[1])
    for response in (put, listed):
        assert "very-secret" not in response.text
        assert "sk-test" not in response.text
    now = shown(api, at=servers[1])
    assert (now["origin"], now["has_key"], now["options"]["temperature"]) == ("workspace", True, 0.3)


def test_members_read_admins_write_and_strangers_do_neither(
    api: Api, person: Person, make: Callable[[], Person]
) -> None:
    member, stranger = make(), make()
    place = Workspace.objects.get(personal_of=person.user)
    Membership.objects.create(workspace=place, user=member.user, role=Role.MEMBER)
    where = {"params": {"workspace": str(place.id)}}

    assert shown(api, by=member, **where)["origin"] == "settings"
    for by in (member, stranger):
        assert api("PUT", "/models/default", json={"model": "m"}, by=by, **where).status_code == 403
        assert api("DELETE", "/models/default", by=by, **where).status_code == 403
        assert api("POST", "/models/default/test", by=by, **where).status_code == 403
    assert api("GET", "/models", by=stranger, **where).status_code == 403
    assert not ModelConfig.objects.filter(workspace=place).exists()


def test_what_one_workspace_sets_no_other_one_sees(api: Api, make: Callable[[], Person]) -> None:
    other = make()
    assert api("PUT", "/models/mine", json={"provider": "fake", "model": "m"}).status_code == 200

    assert "mine" not in api("GET", "/models", by=other).text
    assert api("DELETE", "/models/mine", by=other).status_code == 404
    assert api("POST", "/models/mine/test", by=other).status_code == 404


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"base_url": "https://evil.example"}, "invalid"),
        ({"options": {"base_url": "https://evil.example"}}, "invalid"),
        ({"options": {"api_key": "sk-very-secret"}}, "invalid"),
        ({"provider": "nobody"}, "invalid"),
        ({"key_variable": "OPENAI_API_KEY"}, "invalid"),
        ({"key": "sk-very secret"}, "invalid"),
        ({"key": 5}, "invalid"),
        ({"route": {"models": ["default"]}}, "invalid"),
        ({"unknown": 1}, "invalid"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_no_value(api: Api, person: Person, body: dict[str, Any], code: str) -> None:
    response = api("PUT", "/models/default", json=body)

    assert response.status_code == 422, response.text
    assert response.json()["code"] == code
    assert "secret" not in response.text
    assert not ModelConfig.objects.filter(workspace__personal_of=person.user).exists()


def test_a_route_is_set_and_shown(api: Api) -> None:
    api("PUT", "/models/mine", json={"provider": "fake", "model": "m"})
    body = {"route": {"models": ["mine", "default"], "strategy": "round_robin"}}

    assert api("PUT", "/models/pair", json=body).status_code == 200

    assert shown(api, "pair")["route"] == {"models": ["mine", "default"], "strategy": "round_robin", "weights": []}
    assert api("DELETE", "/models/mine").status_code == 409


def test_trying_a_model_is_a_run_of_the_workspace(api: Api, person: Person, provider: ScriptedProvider) -> None:
    tried = api("POST", "/models/default/test").json()

    assert (tried["ok"], tried["code"], tried["model"]) == (True, "", "scripted")
    assert tried["answer"].startswith("echo:")
    assert tried["latency_ms"] >= tried["first_token_ms"] >= 0
    row = InteractionLog.objects.get(user=person.user)
    assert (row.status, row.alias, row.input_tokens) == ("ok", "default", tried["input_tokens"])
    assert shown(api)["health"][0]["state"] == "closed"


def test_a_model_that_fails_is_an_outcome(api: Api, person: Person, provider: ScriptedProvider) -> None:
    provider.script("", status(401))
    try:
        tried = api("POST", "/models/default/test").json()
    finally:
        provider.forget()

    assert (tried["ok"], tried["code"]) == (False, "provider_misconfigured")
    assert "secret" not in tried["message"]
    assert InteractionLog.objects.get(user=person.user).error_category == "provider_misconfigured"


def test_a_row_that_can_not_be_used_says_why(api: Api, person: Person) -> None:
    place = Workspace.objects.get(personal_of=person.user)
    ModelConfig.objects.create(workspace=place, alias="old", provider="fake", model_name="m", base_url="https://gone")

    assert "ALLOWED_BASE_URLS" in shown(api, "old")["fault"]
    assert shown(api)["fault"] == ""
