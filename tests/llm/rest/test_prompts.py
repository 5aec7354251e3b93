"""Prompts over REST: who may do what, versions and their history, and prompts that are said to be wrong."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx2 as httpx
import pytest

from accounts.access import workspace_for
from accounts.models import Membership, Role, Workspace
from kernel import database
from llm.models import Prompt
from tests.conftest import Person
from tests.support import oracle
from tests.support.client import Client
from tests.support.server import Server

SAY = {"langchain_type": "PromptTemplate", "template": "Say {question} in a {tone} tone"}
CHAT = {
    "langchain_type": "ChatPromptTemplate",
    "messages": [{"role": "system", "content": "Be kind."}, {"MessagesPlaceholder": "history"}],
}
Api = Callable[[Person], httpx.Client]


@pytest.fixture
def api(servers: tuple[Server, Server]) -> Iterator[Api]:
    """A client of a person, by token."""
    clients: list[httpx.Client] = []

    def client(person: Person) -> httpx.Client:
        headers = {"Authorization": f"Bearer {person.token}"}
        clients.append(httpx.Client(base_url=f"{servers[0].url}/api/v1", headers=headers, timeout=20))
        return clients[-1]

    yield client
    for each in clients:
        each.close()


@pytest.fixture
def mine(api: Api, person: Person) -> httpx.Client:
    return api(person)


def made(client: httpx.Client, **body: Any) -> dict[str, Any]:
    response = client.post("/prompts", json={"name": "support", "prompt_template": SAY, **body})
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


def refused(response: httpx.Response, status: int, code: str) -> str:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return str(response.json()["message"])


def test_versions_are_made_listed_and_read(mine: httpx.Client, person: Person) -> None:
    first = made(mine, note="the first")
    second = made(mine, prompt_template=CHAT, activate=False)
    other = made(mine, name="other")

    assert (first["version"], first["is_active"], first["note"]) == (1, True, "the first")
    assert (first["input_variables"], first["created_by"]) == (["tone"], person.user.pk)
    assert (second["version"], second["is_active"], second["prompt_template"]) == (2, False, CHAT)
    assert mine.get("/prompts").json() == {"prompts": [other, first], "next": None}
    assert mine.get("/prompts", params={"name": "support"}).json()["prompts"] == [first]
    of_name = mine.get("/prompts", params={"name": "support", "include_inactive": True}).json()
    assert of_name["prompts"] == [second, first]
    assert mine.get(f"/prompts/{first['id']}").json() == first


def test_lists_are_paged(mine: httpx.Client) -> None:
    rows = [made(mine) for _ in range(5)]
    query: dict[str, Any] = {"include_inactive": True, "limit": 2}
    seen: list[int] = []
    while True:
        page = mine.get("/prompts", params=query).json()
        seen += [row["version"] for row in page["prompts"]]
        if page["next"] is None:
            break
        query["before"] = page["next"]
    assert seen == [5, 4, 3, 2, 1]
    history = mine.get("/prompts/history", params={"name": "support", "limit": 3}).json()
    assert [(each["action"], each["version"]) for each in history["history"]] == [
        ("activated", 5),
        ("created", 5),
        ("activated", 4),
    ]
    following = {"name": "support", "limit": 100, "before": history["next"]}
    assert len(mine.get("/prompts/history", params=following).json()["history"]) == 2 * len(rows) - 3


def test_activate_deactivate_and_roll_back(mine: httpx.Client, person: Person) -> None:
    first, second = made(mine), made(mine)
    back = mine.post("/prompts/roll-back", json={"name": "support"})
    assert (back.status_code, back.json()["id"], back.json()["is_active"]) == (200, first["id"], True)
    assert mine.post(f"/prompts/{second['id']}/activate").json()["is_active"]
    assert not mine.get(f"/prompts/{first['id']}").json()["is_active"]
    assert not mine.post(f"/prompts/{second['id']}/deactivate").json()["is_active"]
    assert mine.get("/prompts").json()["prompts"] == []
    history = mine.get("/prompts/history", params={"name": "support"}).json()["history"]
    assert [each["action"] for each in history[:3]] == ["deactivated", "activated", "rolled_back"]
    assert {each["user"] for each in history} == {person.user.username}
    refused(mine.post("/prompts/roll-back", json={"name": "nothing"}), 409, "conflict")


def test_a_split_is_set_read_and_ended(mine: httpx.Client) -> None:
    made(mine), made(mine)
    shares = {"1": 30, "2": 70}
    assert mine.put("/prompts/split", json={"name": "support", "shares": shares}).json()["shares"] == shares
    assert mine.get("/prompts/split", params={"name": "support"}).json() == {"name": "support", "shares": shares}
    message = refused(mine.put("/prompts/split", json={"name": "support", "shares": {"1": 99}}), 422, "invalid")
    assert "99" in message
    assert mine.put("/prompts/split", json={"name": "support", "shares": {}}).status_code == 200
    assert mine.get("/prompts/split", params={"name": "support"}).json()["shares"] == {}


def test_a_difference_and_a_preview(mine: httpx.Client) -> None:
    first, second = made(mine), made(mine, prompt_template=CHAT)
    diff = mine.get(f"/prompts/{second['id']}/diff", params={"since": first["id"]}).json()["diff"]
    assert diff.startswith("--- support v1\n+++ support v2\n")
    values = {"question": "{tone}", "tone": "kind"}
    shown = mine.post(f"/prompts/{first['id']}/render", json={"values": values}).json()
    assert shown == {"messages": [{"role": "user", "content": "Say {tone} in a kind tone"}]}
    history = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    shown = mine.post(f"/prompts/{second['id']}/render", json={"values": {"history": history}}).json()
    assert shown["messages"] == [{"role": "system", "content": "Be kind."}, *history]
    message = refused(mine.post(f"/prompts/{first['id']}/render", json={}), 422, "prompt_invalid")
    assert "'question'" in message


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"prompt_template": {}}, "langchain_type"),
        ({"prompt_template": {**SAY, "template": "{tone.x}"}}, "'tone.x'"),
        ({"prompt_template": {**SAY, "template_format": "jinja2"}}, "template_format"),
        ({"input_variables": ["tone", "colour"]}, "'colour'"),
        ({"input_variables": ["question"]}, "'tone'"),
        ({"prompt_template": {**SAY, "template": "\0"}}, "NUL"),
    ],
)
def test_a_faulty_prompt_is_refused_with_its_fault(mine: httpx.Client, body: dict[str, Any], fault: str) -> None:
    response = mine.post("/prompts", json={"name": "support", "prompt_template": SAY, **body})
    assert response.status_code == 422
    assert fault in response.json()["message"]
    assert mine.get("/prompts", params={"include_inactive": True}).json()["prompts"] == []


def test_another_workspace_s_prompts_are_not_there(mine: httpx.Client, api: Api, make: Callable[[], Person]) -> None:
    other = make()
    theirs = api(other)
    row = made(theirs)
    own = made(mine)
    place = str(workspace_for(other.caller).pk)

    assert mine.get("/prompts", params={"workspace": place}).json()["prompts"] == []
    for response in (
        mine.get(f"/prompts/{row['id']}"),
        mine.post(f"/prompts/{row['id']}/activate"),
        mine.post(f"/prompts/{row['id']}/deactivate"),
        mine.post(f"/prompts/{row['id']}/render", json={}),
        mine.get(f"/prompts/{own['id']}/diff", params={"since": row["id"]}),
        mine.get(f"/prompts/{row['id']}/diff", params={"since": own["id"]}),
        mine.get(f"/prompts/{uuid4()}"),
    ):
        refused(response, 404, "not_found")
    for response in (
        mine.post("/prompts", json={"name": "x", "prompt_template": SAY, "workspace": place}),
        mine.post("/prompts/roll-back", json={"name": "support", "workspace": place}),
        mine.put("/prompts/split", json={"name": "support", "shares": {"1": 100}, "workspace": place}),
        mine.get("/prompts/split", params={"name": "support", "workspace": place}),
        mine.get("/prompts/history", params={"name": "support", "workspace": place}),
    ):
        refused(response, 403, "forbidden")
    assert theirs.get("/prompts").json()["prompts"] == [row]


@pytest.mark.parametrize("role", [Role.OWNER, Role.ADMIN, Role.MEMBER, Role.VIEWER])
def test_members_read_and_admins_write(api: Api, make: Callable[[], Person], role: Role) -> None:
    shared = Workspace.objects.create(name="shared")
    owner, guest = make(), make()
    Membership.objects.create(workspace=shared, user=owner.user, role=Role.OWNER)
    Membership.objects.create(workspace=shared, user=guest.user, role=role)
    place = str(shared.pk)
    row = made(api(owner), workspace=place)
    client = api(guest)

    query = {"name": "support", "workspace": place}
    assert client.get("/prompts", params=query).json()["prompts"] == [row]
    assert client.post(f"/prompts/{row['id']}/render", json={"values": {"question": "", "tone": ""}}).is_success
    assert client.get("/prompts/history", params=query).is_success
    assert client.get("/prompts/split", params=query).is_success
    writes = [
        client.post("/prompts", json={"name": "support", "prompt_template": SAY, "workspace": place}),
        client.post(f"/prompts/{row['id']}/deactivate"),
        client.post(f"/prompts/{row['id']}/activate"),
        client.put("/prompts/split", json={**query, "shares": {"1": 100}}),
        client.post("/prompts/roll-back", json=query),
    ]
    if role in (Role.OWNER, Role.ADMIN):
        assert all(response.is_success for response in writes), [response.text for response in writes]
    else:
        assert [refused(response, 403, "forbidden") for response in writes]


async def test_a_change_on_one_server_answers_at_another_while_a_chat_goes_on(
    servers: tuple[Server, Server], person: Person, mine: httpx.Client
) -> None:
    second = servers[1]
    session_id = person.new_session(second)
    made(mine, prompt_template={"langchain_type": "PromptTemplate", "template": "one: {question}"})
    await oracle.give_workflow(session_id, [{"type": "prompt", "name": "support"}, {"type": "llm"}])

    async def asked(client: Client) -> tuple[int, str]:
        row = await client.ask("why?")
        assert row["status"] == "complete", row
        log = await oracle.log_of(row["id"])
        return await database.run(lambda: Prompt.objects.get(pk=log["prompt_id"]).version), log["prompt_text"][-1][
            "content"
        ]

    async with person.client(second, session_id) as client:
        assert await asked(client) == (1, "one: why?")
        made(mine, prompt_template={"langchain_type": "PromptTemplate", "template": "two: {question}"})
        assert await asked(client) == (2, "two: why?")
        assert mine.post("/prompts/roll-back", json={"name": "support"}).is_success
        assert await asked(client) == (1, "one: why?")
        mine.put("/prompts/split", json={"name": "support", "shares": {"2": 100}})
        assert await asked(client) == (2, "two: why?")
        row = mine.get("/prompts", params={"name": "support"}).json()["prompts"][0]
        assert mine.post(f"/prompts/{row['id']}/deactivate").is_success
        mine.put("/prompts/split", json={"name": "support", "shares": {}})
        failed = await client.ask("why?")
        assert (failed["status"], failed["error_code"]) == ("failed", "prompt_invalid")
        await oracle.check(session_id, client)
