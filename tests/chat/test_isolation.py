"""Who sees what: every REST route and every command of both sockets, for each role in a workspace, for the owner of
another one, for staff, for a removed member and for nobody. The rows are made from the routers: a route or command
without one fails."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx2 as httpx
import pytest
from django.utils import timezone

from accounts.models import Membership, Role, Workspace
from chat import workflow_protocol
from chat.models import ChatHistory, ChatSession
from chat.protocol import COMMANDS
from django_chain.api import api
from kernel import database
from llm import model_configs, versions
from llm.embeddings.embedder import embedder
from llm.models import Budget, InteractionLog, Prompt, Workflow
from tests.conftest import Person, make_person
from tests.support.raw import Raw
from tests.support.server import Server
from vectorstore import collections, reembedding
from vectorstore.models import Access, Chunk, Document, IngestJob, VectorSet
from vectorstore.scope import Scope
from vectorstore.values import Space


@dataclass
class Scene:
    """An owner's workspace with one of everything in it, and the people who look at it."""

    server: Server
    owner: Person
    session_id: str
    question_id: str
    answer_id: str
    people: dict[str, Person | None]
    #: What stands for a parameter of a path or for a value of a body.
    ids: dict[str, str] = field(default_factory=dict)


WHO = ("owner", "admin", "member", "viewer", "other", "staff", "removed", "nobody")
ROLES = {"admin": Role.ADMIN, "member": Role.MEMBER, "viewer": Role.VIEWER}
SECRET = "the owner's own words"


@pytest.fixture
async def scene(server: Server, person: Person) -> Scene:
    people: dict[str, Any] = (
        {"owner": person} | {who: await database.run(make_person) for who in WHO[1:-1]} | {"nobody": None}
    )
    session_id, theirs = person.new_session(server), people["removed"].new_session(server)
    async with person.client(server, session_id) as client:
        answer = await client.ask(SECRET)
    assert theirs != session_id
    ids = await database.run(_furnish, people)
    return Scene(server, person, session_id, answer["parent"], answer["id"], people, ids | {"session_id": session_id})


def _furnish(people: dict[str, Any]) -> dict[str, str]:
    owner = people["owner"].user
    place = Workspace.objects.get(personal_of=owner)
    for who, role in ROLES.items():
        Membership.objects.create(workspace=place, user=people[who].user, role=role)
    people["removed"].user.memberships.all().delete()
    people["staff"].user.is_staff = True
    people["staff"].user.save()
    content = {"prompt_template": {"langchain_type": "PromptTemplate", "template": f"{SECRET} {{question}}"}}
    steps = {"workflow_definition": [{"type": "prompt", "template": f"{SECRET} {{question}}"}, {"type": "llm"}]}
    made: dict[str, Any] = {}
    for number in range(6):  # each role-back goes one further
        made["prompt_id"] = versions.create(
            Prompt, place.pk, "tone", user_id=owner.pk, note=f"{number}", activate=True, **content
        )
        made["workflow_id"] = versions.create(
            Workflow, place.pk, "flow", user_id=owner.pk, note=f"{number}", activate=True, **steps
        )
    model_configs.put(place.pk, "theirs", user_id=owner.pk, provider="fake", model="fake", key=SECRET.replace(" ", "-"))
    made["row_id"] = row = InteractionLog.objects.get(user=owner)
    return {name: str(one.pk) for name, one in made.items()} | {"run_id": str(row.run_id), "workspace": str(place.pk)}


# REST ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What a route answers to each of WHO, and how it is asked. "{x}" stands for `Scene.ids["x"]`."""

    expected: tuple[int, ...]
    query: dict[str, str] = field(default_factory=dict)
    json: dict[str, Any] | None = None
    #: Makes an object for each asker, for what takes it away.
    fresh: Callable[[Scene], dict[str, str]] | None = None


def _budget(scene: Scene) -> dict[str, str]:
    place = UUID(scene.ids["workspace"])
    limits = {"kind": "tokens_per_day", "limit": 10**9, "per": "user", "user": scene.owner.user}
    Budget.objects.filter(workspace_id=place).delete()
    return {"budget_id": str(Budget.objects.create(workspace_id=place, **limits).pk)}


def _model(scene: Scene) -> dict[str, str]:
    place, alias = UUID(scene.ids["workspace"]), f"m{uuid4().hex}"
    model_configs.put(place, alias, user_id=None, provider="fake", model="fake")
    return {"alias": alias}


def _message(scene: Scene) -> dict[str, str]:
    """Another message of the owner's, that ends the conversation."""
    session = ChatSession.objects.get(id=scene.session_id)
    place = {"order": session.last_order + 1, "seq": session.seq + 1, "accepted_seq": session.seq + 1}
    row = ChatHistory.objects.create(
        workspace_id=session.workspace_id, session=session, role="USER", content=SECRET, **place
    )
    ChatSession.objects.filter(id=session.id).update(seq=row.seq, last_order=row.order)
    return {"message_id": str(row.pk)}


def _shelf(scene: Scene) -> dict[str, str]:
    """A collection of the owner's workspace, with a document that failed and a passage of it, and a member."""
    place, made = UUID(scene.ids["workspace"]), embedder()
    scope = Scope(place, scene.owner.user.pk)
    space = Space(model=made.model, dimension=made.dimension)
    options: dict[str, Any] = {"description": SECRET, "language": "english", "access": Access.WORKSPACE}
    row = collections.create(scope, f"c{uuid4().hex}", space, **options)
    of = {"workspace_id": place, "collection": row}
    text = {"title": SECRET, "text": SECRET, "source": "a.md", "state": "failed", "chunk_count": 1}
    document = Document.objects.create(**of, **text)
    chunk = Chunk.objects.create(**of, document=document, position=0, text=SECRET, start=0, end=len(SECRET))
    IngestJob.objects.create(
        workspace_id=place, document=document, content=b"x", open=False, lease_expires_at=timezone.now()
    )
    reader = scene.people["member"]
    assert reader is not None
    row.members.create(user=reader.user)
    ids = {"ref": row.pk, "document_id": document.pk, "chunk_id": chunk.pk, "user_id": reader.user.pk}
    return {name: str(each) for name, each in ids.items()} | {"unique": f"n{uuid4().hex}"}


def _reembedded(scene: Scene) -> dict[str, str]:
    """Such a collection, whose vectors are being made anew with the server's own model."""
    ids = _outdated(scene)
    made = embedder()
    space = Space(model=made.model, dimension=made.dimension)
    scope = Scope(UUID(scene.ids["workspace"]))
    with scope.wall():
        reembedding.begin(scope, UUID(ids["ref"]), space, "pgvector")
    return ids


def _outdated(scene: Scene) -> dict[str, str]:
    """Such a collection, with vectors of a model that is none of the server's."""
    ids = _shelf(scene)
    VectorSet.objects.filter(collection_id=ids["ref"]).update(embedding_model="fake:old")
    return ids


PLACE = {"workspace": "{workspace}"}
NAMED = {"workspace": "{workspace}", "name": "tone"}
FLOW = NAMED | {"name": "flow"}
TEMPLATE = {"langchain_type": "PromptTemplate", "template": "x {question}"}

#: owner, admin, member, viewer, other, staff, removed, nobody
EVERYBODY = (200, 200, 200, 200, 200, 200, 200, 401)
OWN = (200, 404, 404, 404, 404, 404, 404, 401)
READ = (200, 200, 200, 200, 404, 404, 404, 401)
READ_PLACE = (200, 200, 200, 200, 403, 403, 403, 401)
WRITE_PLACE = (201, 201, 201, 403, 403, 403, 403, 401)
RUN_PLACE = (200, 200, 200, 403, 403, 403, 403, 401)
SET_PLACE = (200, 200, 403, 403, 403, 403, 403, 401)
MAKE_PLACE = (201, 201, 403, 403, 403, 403, 403, 401)
DROP_PLACE = (204, 204, 403, 403, 403, 403, 403, 401)
SET = (200, 200, 403, 403, 404, 404, 404, 401)
DROP = (204, 204, 403, 403, 404, 404, 404, 401)
#: A run's rows: its own person and the workspace's admins.
RUN = (200, 200, 404, 404, 404, 404, 404, 401)

#: Of a collection's documents: viewers read, members write too.
ADD = (202, 202, 202, 403, 404, 404, 404, 401)

ROUTES: dict[tuple[str, str], Row] = {
    ("GET", "/sessions"): Row(EVERYBODY),
    ("POST", "/sessions"): Row(WRITE_PLACE, json=PLACE),
    ("GET", "/sessions/{session_id}"): Row(OWN),
    ("PATCH", "/sessions/{session_id}"): Row(OWN, json={"title": "x"}),
    ("GET", "/sessions/{session_id}/messages"): Row(OWN),
    ("DELETE", "/sessions/{session_id}/messages/{message_id}"): Row((204, *OWN[1:]), fresh=_message),
    # They come with tokens here, and a token makes no other.
    ("POST", "/token"): Row((*[403] * 7, 401)),
    ("GET", "/caches"): Row((403, 403, 403, 403, 403, 200, 403, 401)),
    ("GET", "/prompts"): Row(EVERYBODY, query=PLACE),
    ("POST", "/prompts"): Row(MAKE_PLACE, json=PLACE | {"name": "made", "prompt_template": TEMPLATE}),
    ("GET", "/prompts/history"): Row(READ_PLACE, query=NAMED),
    ("POST", "/prompts/roll-back"): Row(SET_PLACE, json=NAMED),
    ("GET", "/prompts/split"): Row(READ_PLACE, query=NAMED),
    ("PUT", "/prompts/split"): Row(SET_PLACE, json=NAMED | {"shares": {"1": 50, "2": 50}}),
    ("GET", "/prompts/{prompt_id}"): Row(READ),
    ("POST", "/prompts/{prompt_id}/activate"): Row(SET),
    ("POST", "/prompts/{prompt_id}/deactivate"): Row(SET),
    ("GET", "/prompts/{prompt_id}/diff"): Row(READ, query={"since": "{prompt_id}"}),
    ("POST", "/prompts/{prompt_id}/render"): Row(READ, json={"values": {"question": "x"}}),
    ("GET", "/workflows"): Row(EVERYBODY, query=PLACE),
    ("POST", "/workflows"): Row(MAKE_PLACE, json=PLACE | {"name": "made", "workflow_definition": [{"type": "llm"}]}),
    ("POST", "/workflows/validate"): Row(READ_PLACE, json=PLACE | {"workflow_definition": [{"type": "llm"}]}),
    ("GET", "/workflows/schema"): Row(EVERYBODY),
    ("GET", "/workflows/history"): Row(READ_PLACE, query=FLOW),
    ("POST", "/workflows/roll-back"): Row(SET_PLACE, json=FLOW),
    ("GET", "/workflows/{workflow_id}"): Row(READ),
    ("POST", "/workflows/{workflow_id}/activate"): Row(SET),
    ("POST", "/workflows/{workflow_id}/deactivate"): Row(SET),
    ("GET", "/workflows/{workflow_id}/diff"): Row(READ, query={"since": "{workflow_id}"}),
    ("POST", "/workflows/{name}/run"): Row(RUN_PLACE, json=PLACE | {"question": "x", "version": 1}),
    ("GET", "/runs/{run_id}"): Row(RUN),
    # It has ended. That another's running one is not stopped: tests/execution.
    ("DELETE", "/runs/{run_id}"): Row((*[404] * 7, 401)),
    ("GET", "/runs/{run_id}/calls"): Row(RUN),
    ("GET", "/log"): Row(READ_PLACE, query=PLACE),
    ("GET", "/log/{row_id}"): Row(RUN),
    ("GET", "/models"): Row(READ_PLACE, query=PLACE),
    ("PUT", "/models/{alias}"): Row(SET_PLACE, query=PLACE, json={"provider": "fake", "model": "x"}, fresh=_model),
    ("DELETE", "/models/{alias}"): Row(DROP_PLACE, query=PLACE, fresh=_model),
    ("POST", "/models/{alias}/test"): Row(SET_PLACE, query=PLACE, fresh=_model),
    ("GET", "/budgets"): Row(READ_PLACE, query=PLACE),
    ("POST", "/budgets"): Row(MAKE_PLACE, json=PLACE | {"kind": "concurrent_runs", "limit": 1000}, fresh=_budget),
    ("GET", "/budgets/use"): Row(READ_PLACE, query=PLACE),
    ("PATCH", "/budgets/{budget_id}"): Row(SET, json={"limit": 2_000_000_000}, fresh=_budget),
    ("DELETE", "/budgets/{budget_id}"): Row(DROP, fresh=_budget),
    ("GET", "/prices"): Row(EVERYBODY),
    ("GET", "/spend"): Row(READ_PLACE, query=PLACE | {"by": "workspace"}),
    ("GET", "/collections"): Row(READ_PLACE, query=PLACE, fresh=_shelf),
    ("POST", "/collections"): Row(WRITE_PLACE, json=PLACE | {"name": "{unique}"}, fresh=_shelf),
    ("GET", "/collections/{ref}"): Row(READ, query=PLACE, fresh=_shelf),
    ("PATCH", "/collections/{ref}"): Row(SET, query=PLACE, json={"name": "{unique}"}, fresh=_shelf),
    ("DELETE", "/collections/{ref}"): Row(DROP, query=PLACE, fresh=_shelf),
    ("GET", "/collections/{ref}/stats"): Row(READ, query=PLACE, fresh=_shelf),
    ("GET", "/collections/{ref}/members"): Row(SET, query=PLACE, fresh=_shelf),
    ("PUT", "/collections/{ref}/members/{user_id}"): Row(SET, query=PLACE, json={"can_write": True}, fresh=_shelf),
    ("DELETE", "/collections/{ref}/members/{user_id}"): Row(DROP, query=PLACE, fresh=_shelf),
    ("GET", "/collections/{ref}/documents"): Row(READ, query=PLACE, fresh=_shelf),
    # None of them is on the way, so that the stream ends.
    ("GET", "/collections/{ref}/documents/events"): Row(READ, query=PLACE, fresh=_shelf),
    # Without a file it is refused, but only for who may add one; with files: tests/vectorstore/rest.
    ("POST", "/collections/{ref}/documents"): Row((422, 422, 422, *ADD[3:]), query=PLACE, fresh=_shelf),
    ("POST", "/collections/{ref}/documents/url"): Row(
        ADD, query=PLACE, json={"url": "https://example.org/a"}, fresh=_shelf
    ),
    ("POST", "/collections/{ref}/documents/text"): Row(
        ADD, query=PLACE, json={"source": "a", "text": "x"}, fresh=_shelf
    ),
    ("GET", "/documents/{document_id}"): Row(READ, query=PLACE, fresh=_shelf),
    ("PATCH", "/documents/{document_id}"): Row(
        (200, 200, 200, *SET[3:]), query=PLACE, json={"title": "x"}, fresh=_shelf
    ),
    ("DELETE", "/documents/{document_id}"): Row((204, 204, 204, *DROP[3:]), query=PLACE, fresh=_shelf),
    ("POST", "/documents/{document_id}/retry"): Row(ADD, query=PLACE, fresh=_shelf),
    ("GET", "/documents/{document_id}/text"): Row(READ, query=PLACE, fresh=_shelf),
    # It has failed, so that its stream ends.
    ("GET", "/documents/{document_id}/events"): Row(READ, query=PLACE, fresh=_shelf),
    ("GET", "/documents/{document_id}/chunks"): Row(READ, query=PLACE, fresh=_shelf),
    ("GET", "/chunks/{chunk_id}"): Row(READ, query=PLACE, fresh=_shelf),
    ("POST", "/collections/{ref}/reembed"): Row(
        (202, 202, 403, *ADD[3:]), query=PLACE, json={"model": "default"}, fresh=_outdated
    ),
    ("GET", "/collections/{ref}/reembed"): Row(READ, query=PLACE, fresh=_reembedded),
    ("DELETE", "/collections/{ref}/reembed"): Row(DROP, query=PLACE, fresh=_reembedded),
    ("POST", "/search"): Row(READ_PLACE, json=PLACE | {"query": "x"}),
}


def routes() -> Iterator[tuple[str, str]]:
    for prefix, router in api._routers:
        for path, view in router.path_operations.items():
            for operation in view.operations:
                for method in operation.methods:
                    yield method, f"{prefix}{path}".replace("{uuidstr:", "{")


def filled(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: filled(one, ids) for name, one in value.items()}
    return value.format_map(ids) if isinstance(value, str) and value.startswith("{") else value


def test_every_route_has_a_row() -> None:
    assert set(routes()) == set(ROUTES)


async def test_each_route_answers_each_person_as_their_role_is(scene: Scene) -> None:
    wrong: list[Any] = []
    async with httpx.AsyncClient(base_url=f"{scene.server.url}/api/v1", timeout=20) as http:
        # What changes things comes after what shows them.
        for (method, path), row in sorted(ROUTES.items(), key=lambda one: one[0][0] != "GET"):
            for who, status in zip(WHO, row.expected, strict=True):
                ids = scene.ids | {"name": "flow"} | (await database.run(row.fresh, scene) if row.fresh else {})
                person = scene.people[who]
                response = await http.request(
                    method,
                    path.format_map(ids),
                    headers={"Authorization": f"Bearer {person.token}"} if person else {},
                    params=filled(row.query, ids),
                    json=filled({} if row.json is None and method == "POST" else row.json, ids),
                )
                told = (who, method, path, response.status_code, response.text[:300])
                if response.status_code != status:
                    wrong.append(told)
                if who not in ("owner", "admin") and not _may_show(path, who, status) and _shows(scene, response.text):
                    wrong.append(("shown", *told))
    assert wrong == []


def _may_show(path: str, who: str, status: int) -> bool:
    """Prompts, workflows and budgets are the workspace's; sessions, runs and the log are a person's own."""
    shared = ("prompts", "workflows", "budgets", "models", "collections", "documents", "chunks", "search")
    return who in ROLES and status < 300 and path.split("/")[1] in shared


def _shows(scene: Scene, text: str) -> bool:
    hidden = {**scene.ids}
    hidden.pop("workspace")
    return SECRET in text or SECRET.replace(" ", "-") in text or any(one in text for one in hidden.values())


async def test_what_is_named_beside_the_object_is_looked_up_for_the_caller_too(scene: Scene) -> None:
    """A caller's own object on one side of a request, the owner's on the other."""
    other, member = scene.people["other"], scene.people["member"]
    assert other is not None
    assert member is not None
    ids = scene.ids

    async with httpx.AsyncClient(base_url=f"{scene.server.url}/api/v1", timeout=20) as http:

        async def call(person: Person, method: str, path: str, **more: Any) -> httpx.Response:
            return await http.request(method, path, headers={"Authorization": f"Bearer {person.token}"}, **more)

        for kind, content in (
            ("prompts", {"prompt_template": TEMPLATE}),
            ("workflows", {"workflow_definition": [{"type": "llm"}]}),
        ):
            made = await call(other, "POST", f"/{kind}", json={"name": "flow", **content})
            assert made.status_code == 201, made.text
            theirs = ids["prompt_id" if kind == "prompts" else "workflow_id"]
            response = await call(other, "GET", f"/{kind}/{made.json()['id']}/diff", params={"since": theirs})
            assert response.status_code == 404
            listed = await call(
                other, "GET", f"/{kind}", params={"before": str(uuid4()), "workspace": ids["workspace"]}
            )
            assert listed.json()[kind] == []
        # The owner's session as the history of somebody else's run; in their own workspace, and in the owner's.
        for asker, place in ((other, {}), (member, {"workspace": ids["workspace"]})):
            asked = {"question": "x", "session": ids["session_id"], **place}
            assert (await call(asker, "POST", "/workflows/flow/run", json=asked)).status_code == 404
        # Filters don't widen what is seen.
        for filters in ({"run": ids["run_id"]}, {"session": ids["session_id"]}, {"user": str(scene.owner.user.pk)}):
            for asker in (other, member):
                place = {"workspace": ids["workspace"]} if asker is member else {}
                found = await call(asker, "GET", "/log", params=filters | place)
                assert found.json()["calls"] == []
        assert (await call(other, "GET", "/log", params={"before": ids["row_id"]})).status_code == 404
        spent = await call(member, "GET", "/spend", params={"workspace": ids["workspace"]})
        assert all(group["calls"] == 0 for group in spent.json()["groups"])


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
    "message.edit": ({"message_id": "{question}", "id": "e1", "text": "other"}, "ack"),
    "message.regenerate": ({"message_id": "{answer}", "id": "r1"}, "ack"),
    "message.delete": ({"message_id": "{answer}", "id": "d1"}, "ack"),
    "turn.stop": ({"message_id": "{answer}", "id": "s1"}, "ack"),
    "seen": ({"frames": 1}, None),
    "ping": ({}, "pong"),
}


def verb(name: str, scene: Scene) -> dict[str, Any]:
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {filled(key): filled(item) for key, item in value.items()}
        if not isinstance(value, str):
            return value
        return value.replace("{answer}", scene.answer_id).replace("{question}", scene.question_id)

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


async def test_no_command_reaches_a_session_that_isnt_ones_own(scene: Scene) -> None:
    """Everything is sent behind a hello that fails, without waiting for its refusal."""
    for who in WHO[1:]:
        person = scene.people[who]
        async with Raw(scene.server.socket_url(scene.session_id)) as raw:
            hello = verb("hello", scene) | ({"token": person.token} if person else {})
            for frame in (hello, *(verb(name, scene) for name in VERBS if name not in ("hello", "ping"))):
                await raw.send(frame)
            heard: list[dict[str, Any]] = []
            while not heard or heard[-1].get("code") not in ("not_found", "sign_in_required"):
                heard.append(await raw.next())
            assert {frame["type"] for frame in heard} == {"error"}
            assert await raw.closed() in (4001, 4003)
    rows = await history(scene)
    assert [row["content"] for row in rows if row["role"] == "USER"] == [SECRET]


@pytest.mark.parametrize("who", ["other", "admin"])
async def test_no_command_reaches_another_session_from_ones_own(scene: Scene, who: str) -> None:
    person = scene.people[who]
    assert person is not None
    async with Raw(scene.server.socket_url(person.new_session(scene.server))) as raw:
        welcome = await raw.ask(verb("hello", scene) | {"token": person.token})
        assert welcome["session"]["id"] != scene.session_id
        for name in ("message.edit", "message.regenerate", "message.delete", "turn.stop"):
            assert (await raw.ask(verb(name, scene), "ack", "error"))["code"] == "not_found", name
        sent = {"type": "message.send", "id": "m0", "text": "mine", "parent": scene.answer_id}
        assert (await raw.ask(sent, "ack", "error"))["code"] == "not_found"
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


# The workflows' socket -----------------------------------------------------------------------------------------------

#: What each of WHO is told when they run the owner's workflow there.
WORKFLOW_VERBS: dict[str, tuple[str, ...]] = {
    "hello": (*["welcome"] * 7, "sign_in_required"),
    "workflow.run": ("ack", "ack", "ack", "forbidden", "forbidden", "forbidden", "forbidden", "sign_in_required"),
    # Of a run that goes on on another socket.
    "run.stop": (*["not_found"] * 7, "sign_in_required"),
    "seen": (*["pong"] * 7, "sign_in_required"),
    "ping": (*["pong"] * 7, "sign_in_required"),
}


def test_every_command_of_the_workflows_socket_has_a_row() -> None:
    assert {kind.__struct_config__.tag for kind in workflow_protocol.COMMANDS} == set(WORKFLOW_VERBS)


async def test_each_command_of_the_workflows_socket_is_answered_as_the_role_is(scene: Scene) -> None:
    for place, who in enumerate(WHO):
        await _try_each_command(scene, who, place)


async def _try_each_command(scene: Scene, who: str, place: int) -> None:
    person = scene.people[who]
    frames: dict[str, dict[str, Any]] = {
        "workflow.run": {"id": "r", "workflow": "flow", "question": "x", "workspace": scene.ids["workspace"]},
        "run.stop": {"id": "theirs"},
        "seen": {"frames": 1},
        "ping": {},
    }
    url = f"ws://127.0.0.1:{scene.server.port}/ws/workflows/"
    async with Raw(url) as raw:
        hello = await raw.hello(person.token if person else None)
        assert (hello.get("code") or hello["type"]) == WORKFLOW_VERBS["hello"][place]
        if person is None:
            assert await raw.closed() == 4001
            return
        for name, more in frames.items():
            await raw.send({"type": name, **more})
            if name == "seen":
                await raw.send({"type": "ping"})
            answer = await raw.next("ack", "error", "pong")
            assert (answer.get("code") or answer["type"]) == WORKFLOW_VERBS[name][place], name
    if who == "member":
        async with Raw(url) as raw:
            await raw.hello(person.token)
            await raw.send({"type": "workflow.run", **frames["workflow.run"], "session": scene.session_id})
            assert (await raw.next("ack", "error"))["code"] == "not_found"
