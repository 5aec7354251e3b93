"""Which workflow answers in a session is chosen over REST."""

from typing import Any

from tests.conftest import Person
from tests.execution.conftest import Api
from tests.support.scripted_provider import ScriptedProvider, ok, text
from tests.support.server import Server


def test_a_session_follows_the_active_version_or_is_pinned_to_one(api: Api, flow: str) -> None:
    following = api("POST", "/sessions", json={"workflow": flow}).json()
    pinned = api("POST", "/sessions", json={"workflow": flow, "version": 1}).json()

    assert (following["workflow"], following["version"]) == ("flow", None)
    assert (pinned["workflow"], pinned["version"]) == ("flow", 1)
    listed = {row["id"]: row for row in api("GET", "/sessions").json()["sessions"]}
    assert (listed[pinned["id"]]["workflow"], listed[pinned["id"]]["version"]) == ("flow", 1)
    assert api("GET", f"/sessions/{pinned['id']}").json()["version"] == 1


def test_a_session_is_changed_by_what_is_named(api: Api, flow: str, other: Person) -> None:
    session = api("POST", "/sessions", json={"title": "one"}).json()
    path = f"/sessions/{session['id']}"

    def change(**body: Any) -> Any:
        response = api("PATCH", path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    assert change(title="two")["title"] == "two"
    assert (change(workflow=flow)["workflow"], change(version=1)["version"]) == (flow, 1)
    assert change(is_active=False)["title"] == "two"
    assert (change(version=None)["version"], change(workflow=None)["workflow"]) == (None, None)
    assert api("PATCH", path, json={"title": "mine"}, by=other).status_code == 404
    assert api("PATCH", path, json={"version": 1}).status_code == 422


def test_only_a_workflow_of_the_workspace_can_answer(api: Api, flow: str, other: Person) -> None:
    foreign = api("POST", "/sessions", json={"workflow": flow}, by=other)
    unknown = api("POST", "/sessions", json={"workflow": flow, "version": 9})

    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert "'flow'" in foreign.json()["message"]


async def test_the_session_s_workflow_answers_its_messages(
    api: Api, server: Server, person: Person, provider: ScriptedProvider
) -> None:
    provider.script("inside", text("said"), ok())
    made = api("POST", "/workflows", json={"name": "inside", "workflow_definition": [{"type": "llm"}]})
    assert made.status_code == 201
    session = api("POST", "/sessions", json={"workflow": "inside"}).json()
    async with person.client(server, session["id"]) as client:
        assert (await client.ask("[[inside]]"))["content"] == "said"
    row = api("GET", "/log", params={"session": session["id"]}).json()["calls"][0]
    assert row["workflow"] == made.json()["id"]
