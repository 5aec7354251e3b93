"""REST over real HTTP, on both servers: who is let in, lists that stay true, errors that are typed and say no value."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx2 as httpx
import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.utils import timezone

from accounts.models import Membership, Role, Workspace
from chat.models import ChatHistory, ChatSession
from chat.protocol import Close
from tests.chat.conftest import KINDS
from tests.conftest import Person
from tests.support import stage
from tests.support.raw import Raw
from tests.support.server import Server, free_port


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """Nobody."""
    with httpx.Client(base_url=server.url, timeout=10) as client:
        yield client


@pytest.fixture
def api(server: Server, person: Person) -> Iterator[httpx.Client]:
    """The person, by token."""
    headers = {"Authorization": f"Bearer {person.token}"}
    with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, timeout=10) as client:
        yield client


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert body["code"] == code, body
    assert body["message"]
    return body


# Who -----------------------------------------------------------------------------------------------------------------


def test_without_credentials_there_is_nothing(http: httpx.Client) -> None:
    refused(http.get("/api/v1/sessions"), 401, "sign_in_required")
    refused(http.get("/api/v1/sessions", headers={"Authorization": "Bearer nonsense"}), 401, "sign_in_required")
    refused(http.post("/api/v1/token", headers={"Authorization": "Bearer nonsense"}), 401, "sign_in_required")
    refused(http.post("/api/v1/sessions", json={}), 401, "sign_in_required")
    refused(http.get("/api/v1/sessions", headers={"Authorization": "Basic dTpw"}), 401, "sign_in_required")
    refused(http.get("/api/v1/sessions", headers={"Cookie": "sessionid=nonsense"}), 401, "sign_in_required")
    refused(http.get("/api/v1/sessions", headers={"Cookie": 'sessionid="\\000aaaaaaaaaaaa"'}), 401, "sign_in_required")


def test_a_token_in_the_url_is_no_token(http: httpx.Client, person: Person) -> None:
    refused(http.get(f"/api/v1/sessions?token={person.token}"), 401, "sign_in_required")


def test_a_cookie_reads_and_with_the_csrf_token_writes(
    http: httpx.Client, person: Person, cookie: tuple[str, str]
) -> None:
    assert http.get("/api/v1/sessions", headers=[cookie]).status_code == 200
    refused(http.post("/api/v1/sessions", headers=[cookie], json={}), 403, "forbidden")
    page = http.get("/", headers=[cookie])
    csrf = page.cookies["csrftoken"]
    both = ("Cookie", f"{cookie[1]}; csrftoken={csrf}")
    assert http.post("/api/v1/sessions", headers=[both, ("X-CSRFToken", csrf)], json={}).status_code == 201
    refused(http.post("/api/v1/sessions", headers=[both, ("X-CSRFToken", "x" * 32)], json={}), 403, "forbidden")
    foreign = [both, ("X-CSRFToken", csrf), ("Origin", "https://evil.example")]
    refused(http.post("/api/v1/sessions", headers=foreign, json={}), 403, "forbidden")


def test_a_signed_out_cookie_is_nobody(http: httpx.Client, cookie: tuple[str, str]) -> None:
    SessionStore(cookie[1].partition("=")[2]).flush()
    refused(http.get("/api/v1/sessions", headers=[cookie]), 401, "sign_in_required")


def test_no_answer_invites_a_foreign_page_to_read_it(http: httpx.Client, cookie: tuple[str, str]) -> None:
    response = http.get("/api/v1/sessions", headers=[cookie, ("Origin", "https://evil.example")])
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_page_mints_a_token_that_opens_a_socket(
    server: Server, http: httpx.Client, person: Person, cookie: tuple[str, str]
) -> None:
    csrf = http.get("/", headers=[cookie]).cookies["csrftoken"]
    headers = [("Cookie", f"{cookie[1]}; csrftoken={csrf}"), ("X-CSRFToken", csrf)]
    minted = http.post("/api/v1/token", headers=headers).json()
    assert minted["expires_in"] > 0
    session_id = person.new_session(server)
    async with Raw(server.socket_url(session_id)) as raw:
        assert (await raw.hello(minted["token"]))["type"] == "welcome"


def test_a_token_makes_no_other_so_that_a_stolen_one_ends(api: httpx.Client) -> None:
    refused = api.post("/token")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


# Sessions ------------------------------------------------------------------------------------------------------------


def test_a_session_is_made_listed_and_read(api: httpx.Client) -> None:
    made = api.post("/sessions", json={"title": "Warranty ☃"})
    assert made.status_code == 201
    session = made.json()
    assert session["title"] == "Warranty ☃"
    assert api.get(f"/sessions/{session['id']}").json() == session
    assert api.get("/sessions").json() == {"sessions": [session], "next": None}
    assert api.get(f"/sessions/{session['id']}/messages").json() == {"messages": [], "has_more": False}


def test_a_title_is_made_storable(api: httpx.Client) -> None:
    assert api.post("/sessions", json={"title": "a\0b"}).json()["title"] == "a\ufffdb"


def test_a_session_goes_into_a_workspace_one_may_write_in(api: httpx.Client, person: Person, other: Person) -> None:
    shared = Workspace.objects.create(name="shared")
    mine = Membership.objects.create(workspace=shared, user=person.user, role=Role.MEMBER)
    Membership.objects.create(workspace=shared, user=other.user, role=Role.VIEWER)
    made = api.post("/sessions", json={"workspace": str(shared.id)})
    assert made.status_code == 201, "another member who only views takes nothing from this one"
    assert ChatSession.objects.get(id=made.json()["id"]).workspace_id == shared.id
    mine.role = Role.VIEWER
    mine.save()
    refused(api.post("/sessions", json={"workspace": str(shared.id)}), 403, "forbidden")
    mine.delete()
    foreign = refused(api.post("/sessions", json={"workspace": str(shared.id)}), 403, "forbidden")
    assert refused(api.post("/sessions", json={"workspace": str(uuid4())}), 403, "forbidden") == foreign


def titles(api: httpx.Client, **query: Any) -> tuple[list[str], str | None]:
    page = api.get("/sessions", params={name: value for name, value in query.items() if value is not None}).json()
    return [one["title"] for one in page["sessions"]], page["next"]


def test_pages_of_sessions_stay_true_while_sessions_change(api: httpx.Client, person: Person) -> None:
    for number in range(9):
        api.post("/sessions", json={"title": str(number)})
    first, following = titles(api, limit=4)
    assert first == ["8", "7", "6", "5"]
    # A new one, one used again from the page already read, and one used again from a page to come.
    api.post("/sessions", json={"title": "new"})
    for title in ("6", "1"):
        ChatSession.objects.filter(user=person.user, title=title).update(updated_at=timezone.now())
    second, following = titles(api, limit=3, cursor=following)
    third, end = titles(api, limit=3, cursor=following)
    assert second + third == ["4", "3", "2", "0"], "what did not change comes once; what changed is at the top now"
    assert end is None
    assert titles(api, limit=3)[0] == ["1", "6", "new"]


def test_sessions_of_one_instant_are_paged_without_loss(api: httpx.Client, person: Person) -> None:
    for number in range(7):
        api.post("/sessions", json={"title": str(number)})
    at = timezone.now().replace(microsecond=0)
    ChatSession.objects.filter(user=person.user).update(updated_at=at)
    found: list[str] = []
    cursor = None
    while True:
        page, cursor = titles(api, limit=2, cursor=cursor)
        found += page
        if cursor is None:
            break
    assert sorted(found) == [str(number) for number in range(7)]


def test_a_cursor_of_another_person_shows_only_ones_own(api: httpx.Client, server: Server, other: Person) -> None:
    for _ in range(3):
        other.new_session(server, title="theirs")
    headers = {"Authorization": f"Bearer {other.token}"}
    page = httpx.get(f"{server.url}/api/v1/sessions", params={"limit": 1}, headers=headers).json()
    assert page["next"]
    assert titles(api, cursor=page["next"]) == ([], None)


# History -------------------------------------------------------------------------------------------------------------


async def test_history_is_what_the_socket_showed(server: Server, api: httpx.Client, person: Person) -> None:
    session_id = person.new_session(server)
    async with person.client(server, session_id) as client:
        for number in range(3):
            await client.ask(f"question {number}")
    known = sorted(client.messages.values(), key=lambda row: row["order"])
    page = api.get(f"/sessions/{session_id}/messages").json()
    assert page["has_more"] is False
    for row, frame in zip(page["messages"], known, strict=True):
        assert row.keys() == frame.keys()
        assert {key: row[key] for key in row if not key.endswith("_at")} == {
            key: frame[key] for key in frame if not key.endswith("_at")
        }


def test_history_is_paged_backwards_without_gap(server: Server, api: httpx.Client, person: Person) -> None:
    session = ChatSession.objects.get(id=UUID(person.new_session(server)))
    rows = [
        ChatHistory(
            workspace_id=session.workspace_id,
            session=session,
            role="USER",
            content=str(n),
            order=n,
            seq=n,
            accepted_seq=n,
        )
        for n in range(1, 12)
    ]
    ChatHistory.objects.bulk_create(rows)
    found: list[int] = []
    before = None
    for expected_more in (True, True, False):
        query = {"limit": 4, **({"before": before} if before is not None else {})}
        page = api.get(f"/sessions/{session.id}/messages", params=query).json()
        orders = [row["order"] for row in page["messages"]]
        assert orders == sorted(orders)
        assert page["has_more"] is expected_more
        found, before = orders + found, orders[0]
    assert found == list(range(1, 12))
    assert api.get(f"/sessions/{session.id}/messages", params={"before": 1}).json()["messages"] == []
    assert len(api.get(f"/sessions/{session.id}/messages", params={"before": 10**30}).json()["messages"]) == 11


def test_a_deleted_message_is_listed_without_its_text(server: Server, api: httpx.Client, person: Person) -> None:
    session = ChatSession.objects.get(id=UUID(person.new_session(server)))
    ChatHistory.objects.create(
        workspace_id=session.workspace_id, session=session, role="USER", content="gone", order=1, seq=1, accepted_seq=1,
        is_deleted=True,
    )  # fmt: skip
    (row,) = api.get(f"/sessions/{session.id}/messages").json()["messages"]
    assert row["deleted"] is True
    assert row["content"] == ""


# What is not valid ---------------------------------------------------------------------------------------------------

SECRET = "sk-secret-value"


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "/sessions", {"params": {"limit": 0}}),
        ("GET", "/sessions", {"params": {"limit": 101}}),
        ("GET", "/sessions", {"params": {"limit": SECRET}}),
        ("GET", "/sessions", {"params": {"cursor": SECRET}}),
        ("GET", "/sessions", {"params": {"cursor": f"2026-01-01T00:00:00~{uuid4()}"}}),
        ("GET", "/sessions", {"params": {"cursor": f"2026-01-01T00:00:00+00:00~{SECRET}"}}),
        ("GET", "/sessions", {"params": {"cursor": "\0~"}}),
        ("GET", "/sessions", {"params": {"cursor": SECRET * 20}}),
        ("GET", "/sessions/{id}/messages", {"params": {"before": -1}}),
        ("GET", "/sessions/{id}/messages", {"params": {"before": SECRET}}),
        ("GET", "/sessions/{id}/messages", {"params": {"limit": 10**6}}),
        ("POST", "/sessions", {"json": {"title": SECRET * 20}}),
        ("POST", "/sessions", {"json": {"title": [SECRET]}}),
        ("POST", "/sessions", {"json": {"title": None}}),
        ("POST", "/sessions", {"json": {"workspace": SECRET}}),
        ("POST", "/sessions", {"json": {"titel": SECRET}}),
        ("POST", "/sessions", {"json": [SECRET]}),
        ("POST", "/sessions", {"json": SECRET}),
        ("POST", "/sessions", {"content": b'{"title": "\\ud800"}', "headers": {"Content-Type": "application/json"}}),
    ],
)
def test_what_is_not_valid_is_named_without_its_value(
    server: Server, api: httpx.Client, person: Person, method: str, path: str, more: dict[str, Any]
) -> None:
    response = api.request(method, path.replace("{id}", person.new_session(server)), **more)
    refused(response, 422, "invalid")
    assert SECRET not in response.text


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 10_000, b'{"title": NaN}', SECRET.encode()]
)
def test_a_body_that_is_no_json_is_refused(api: httpx.Client, body: bytes) -> None:
    response = api.post("/sessions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["code"] == "invalid"
    assert SECRET not in response.text


def test_a_body_that_is_too_large_is_refused(api: httpx.Client) -> None:
    refused(api.post("/sessions", json={"title": "x" * 3_000_000}), 413, "too_large")


def test_a_method_that_is_not_there_and_an_unknown_path(api: httpx.Client) -> None:
    assert api.delete("/sessions").status_code == 405
    assert api.get("/nothing").status_code == 404
    assert api.get("/sessions/not-a-uuid").status_code == 404


# Description and health ----------------------------------------------------------------------------------------------


def test_the_api_describes_itself(http: httpx.Client) -> None:
    described = http.get("/api/v1/openapi.json").json()
    assert described["openapi"].startswith("3.")
    assert {"/api/v1/sessions", "/api/v1/token"} <= set(described["paths"])
    assert set(described["components"]["securitySchemes"]) == {"TokenAuth", "CookieAuth"}
    for path, verbs in described["paths"].items():
        for verb, operation in verbs.items():
            assert operation["summary"], f"{verb} {path} has no summary"
            assert operation["security"], f"{verb} {path} is open to everyone"


def test_the_documentation_page_loads_everything_from_this_server(http: httpx.Client) -> None:
    page = http.get("/api/v1/docs")
    assert page.status_code == 200
    links = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert any(link.endswith(".js") for link in links)
    for link in links:
        assert link.startswith("/"), f"{link} is somebody else's"
        assert http.get(link).status_code == 200, link


def test_health_and_readiness(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    ready = http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        **dict.fromkeys(("database", "store", "vectors", "model", "server"), "ok"),
    }
    assert http.head("/healthz").status_code == 200


@pytest.mark.parametrize("kind", KINDS)
async def test_without_its_database_a_server_lives_but_is_not_ready(spawn: Any, person: Person, kind: str) -> None:
    env = {"DATABASE_URL": f"postgres://nobody@127.0.0.1:{free_port()}/nothing"}
    server = spawn(kind=kind, env=env, wait_ready=False)
    with httpx.Client(base_url=server.url, transport=httpx.HTTPTransport(retries=20), timeout=10) as http:
        while True:
            try:
                ready = http.get("/readyz")
            except httpx.ConnectError:
                continue
            if ready.json()["model"] == "ok":
                break
        assert ready.status_code == 503
        well = dict.fromkeys(("store", "vectors", "model", "server"), "ok")
        assert ready.json() == {"status": "not ready", "database": "down", **well}
        assert http.get("/healthz").status_code == 200
        response = http.get("/api/v1/sessions", headers={"Authorization": f"Bearer {person.token}"})
        refused(response, 503, "database_unavailable")
        assert int(response.headers["Retry-After"]) >= 1
    async with Raw(server.socket_url(uuid4())) as raw:
        answer = await raw.hello(person.token)
        assert (answer["code"], answer["retry_after"] > 0) == ("database_unavailable", True)
        assert await raw.closed() == Close.DEPENDENCY_DOWN
    assert "Traceback" not in server.log_text()


def test_without_its_store_a_server_is_ready_but_says_so(spawn: Any) -> None:
    env = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    server = spawn(env=env)
    assert httpx.get(f"{server.url}/readyz").json()["store"] == "degraded"


def test_without_the_store_of_its_vectors_a_server_is_ready_but_says_so(spawn: Any) -> None:
    options = {"host": "127.0.0.1", "port": free_port(), "timeout": 1.0}
    server = spawn(env=stage.settings(VECTOR_STORE={"BACKEND": "chroma", "OPTIONS": {"chroma": options}}))
    ready = httpx.get(f"{server.url}/readyz", timeout=10)
    assert (ready.status_code, ready.json()["status"], ready.json()["vectors"]) == (200, "ready", "degraded")
