"""A workflow's run over REST: whole, and as a stream while it comes."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import httpx2 as httpx
import pytest
from django.utils import timezone

from accounts.models import Membership, Role, Workspace
from llm import sweeping
from llm.models import Budget, BudgetKind, InteractionLog, Reservation
from tests.conftest import Person
from tests.execution.conftest import Api, closed_rows
from tests.support.scripted_provider import Gate, ScriptedProvider, endless, ok, status, text, wait
from tests.support.server import Server


def frames(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def streamed(api: Api, server: Server, person: Person, question: str) -> Any:
    return httpx.stream(
        "POST",
        f"{server.url}/api/v1/workflows/flow/run",
        headers={"Authorization": f"Bearer {person.token}"},
        json={"question": question, "stream": True},
        timeout=20,
    )


def test_a_run_answers_with_everything_it_came_to(
    api: Api, flow: str, person: Person, provider: ScriptedProvider
) -> None:
    provider.script("whole", text("Hello ", "world"), ok())

    response = api("POST", f"/workflows/{flow}/run", json={"question": "[[whole]]"})

    assert response.status_code == 200, response.text
    body = response.json()
    assert (body["status"], body["text"], body["output"]) == ("ok", "Hello world", "Hello world")
    assert [step["type"] for step in body["steps"]] == ["llm"]
    assert body["usage"]["calls"] == 1
    assert body["usage"]["output_tokens"] > 0
    (row,) = closed_rows(person)
    assert (str(row.run_id), row.status) == (body["run_id"], "ok")
    assert row.workflow is not None
    shown = api("GET", f"/runs/{body['run_id']}").json()
    assert (shown["status"], shown["usage"], shown["steps"]) == ("ok", body["usage"], body["steps"])


def test_text_is_streamed_before_the_model_has_ended(
    api: Api, flow: str, server: Server, person: Person, provider: ScriptedProvider
) -> None:
    gate = Gate()
    provider.script("live", text("Hello "), wait(gate), text("world"), ok())

    with streamed(api, server, person, "[[live]]") as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["x-accel-buffering"] == "no"
        events = frames(response.iter_lines())
        first = next(event for event in events if event[0] == "text")
        assert first == ("text", {"text": "Hello "})
        assert not gate.is_open()
        gate.release()
        rest = list(events)

    assert [name for name, _ in rest] == ["text", "step", "output", "done"]
    assert rest[-1][1]["status"] == "ok"
    assert rest[-1][1]["run_id"] == response.headers["x-run-id"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_stops_its_run_within_a_second(
    api: Api, flow: str, server: Server, person: Person, provider: ScriptedProvider, stream: bool
) -> None:
    name = f"gone-{stream}-{server.kind}"
    provider.script(name, endless(every=0.02))
    client = httpx.Client(timeout=20)
    body = {"question": f"[[{name}]]", "stream": stream}
    request = client.build_request(
        "POST",
        f"{server.url}/api/v1/workflows/flow/run",
        headers={"Authorization": f"Bearer {person.token}"},
        json=body,
    )
    if stream:
        response = client.send(request, stream=True)
        next(event for event in frames(response.iter_lines()) if event[0] == "text")
        left = time.monotonic()
        response.close()
    else:
        with pytest.raises(httpx.TimeoutException):
            client.send(
                client.build_request(
                    "POST", request.url, headers=request.headers, json=body, extensions={"timeout": {"read": 0.5}}
                )
            )
        left = time.monotonic()
    client.close()

    exchange = provider.wait_for(name)
    assert exchange.disconnected.wait(5)
    assert exchange.disconnected_at is not None
    assert exchange.disconnected_at - left < 1
    (row,) = closed_rows(person)
    assert row.status == "stopped"


def test_a_provider_that_fails_is_a_typed_error(
    api: Api, flow: str, server: Server, person: Person, provider: ScriptedProvider
) -> None:
    provider.script("broken", status(400))

    whole = api("POST", f"/workflows/{flow}/run", json={"question": "[[broken]]"})
    assert whole.json()["code"] == "provider_refused"
    with streamed(api, server, person, "[[broken]]") as response:
        events = list(frames(response.iter_lines()))

    assert [name for name, _ in events][-2:] == ["error", "done"]
    assert events[-2][1]["code"] == "provider_refused"
    assert events[-1][1]["status"] == "failed"
    assert {(row.status, row.error_category) for row in closed_rows(person)} == {("failed", "provider_refused")}


def test_a_run_can_be_stopped_by_its_id(
    api: Api, flow: str, server: Server, person: Person, other: Person, provider: ScriptedProvider
) -> None:
    provider.script("stopped", endless(every=0.02))
    with streamed(api, server, person, "[[stopped]]") as response:
        events = frames(response.iter_lines())
        next(event for event in events if event[0] == "text")
        run = response.headers["x-run-id"]
        assert api("DELETE", f"/runs/{run}", by=other).status_code == 404
        assert api("DELETE", f"/runs/{run}").status_code == 204
        assert list(events)[-1][1]["status"] == "stopped"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("flow", {"question": 5}, 422),
        ("flow", {"question": "x", "more": 1}, 422),
        ("flow", {"version": 0}, 422),
        ("flow", {"version": 7}, 404),
        ("flow", [], 422),
        ("nothing", {"question": "x"}, 404),
    ],
)
def test_what_can_not_run_is_refused_and_leaves_no_row(
    api: Api, flow: str, person: Person, path: str, body: Any, code: int
) -> None:
    assert api("POST", f"/workflows/{path}/run", json=body).status_code == code
    assert closed_rows(person) == []


def test_nothing_is_run_or_seen_across_workspaces(
    api: Api, flow: str, person: Person, other: Person, provider: ScriptedProvider
) -> None:
    provider.script("mine", text("x"), ok())
    run = api("POST", f"/workflows/{flow}/run", json={"question": "[[mine]]"}).json()["run_id"]
    mine = str(Workspace.objects.get(personal_of=person.user).pk)
    row = api("GET", "/workflows").json()["workflows"][0]["id"]

    assert api("POST", f"/workflows/{flow}/run", json={"question": "x"}, by=other).status_code == 404
    assert api("POST", f"/workflows/{flow}/run", json={"question": "x", "workspace": mine}, by=other).status_code == 403
    assert api("GET", f"/runs/{run}", by=other).status_code == 404
    assert api("GET", f"/workflows/{row}", by=other).status_code == 404
    assert api("POST", f"/workflows/{row}/activate", by=other).status_code == 404
    assert api("GET", "/workflows", by=other).json()["workflows"] == []

    membership = Membership.objects.create(workspace_id=mine, user=other.user, role=Role.VIEWER)
    # Like the log: one's own runs, and all of them for those who administer the workspace.
    assert api("GET", f"/runs/{run}", by=other).status_code == 404
    assert api("GET", f"/workflows/{row}", by=other).status_code == 200
    assert api("POST", f"/workflows/{flow}/run", json={"question": "x", "workspace": mine}, by=other).status_code == 403
    assert api("POST", f"/workflows/{row}/deactivate", by=other).status_code == 403

    membership.role = Role.ADMIN
    membership.save()
    assert api("GET", f"/runs/{run}", by=other).status_code == 200


def test_a_budget_refuses_the_run_before_anything_is_written(api: Api, flow: str, person: Person) -> None:
    workspace = Workspace.objects.get(personal_of=person.user)
    Budget.objects.create(workspace=workspace, kind=BudgetKind.MESSAGES, limit=0)

    refused = api("POST", f"/workflows/{flow}/run", json={"question": "x", "stream": True})

    assert (refused.status_code, refused.json()["code"]) == (429, "budget_exceeded")
    assert closed_rows(person) == []


def test_versions_are_made_checked_compared_and_rolled_back(api: Api, flow: str) -> None:
    broken = api("POST", "/workflows/validate", json={"workflow_definition": [{"type": "llm"}, {"type": "nonsense"}]})
    assert (broken.status_code, broken.json()["code"]) == (422, "workflow_invalid")
    assert broken.json()["message"].startswith("steps[1]")
    assert api("POST", "/workflows/validate", json={"workflow_definition": [{"type": "llm"}]}).json() == {"valid": True}
    first = api("GET", "/workflows").json()["workflows"][0]
    second = api(
        "POST", "/workflows", json={"name": flow, "workflow_definition": [{"type": "prompt"}, {"type": "llm"}]}
    ).json()

    assert (second["version"], second["is_active"]) == (2, True)
    assert "prompt" in api("GET", f"/workflows/{second['id']}/diff", params={"since": first["id"]}).json()["diff"]
    assert api("POST", "/workflows/roll-back", json={"name": flow}).json()["version"] == 1
    history = api("GET", "/workflows/history", params={"name": flow}).json()["history"]
    assert [entry["action"] for entry in history] == ["rolled_back", "activated", "created", "activated", "created"]
    assert api("POST", f"/workflows/{first['id']}/deactivate").json()["is_active"] is False
    assert api("POST", f"/workflows/{flow}/run", json={"question": "x"}).status_code == 404
    assert "steps" in json.dumps(api("GET", "/workflows/schema").json())


def test_the_run_of_a_server_that_was_killed_is_ended_by_the_sweep(
    spawn: Callable[..., Server], person: Person, provider: ScriptedProvider
) -> None:
    dying = spawn()
    headers = {"Authorization": f"Bearer {person.token}"}
    made = httpx.post(
        f"{dying.url}/api/v1/workflows",
        headers=headers,
        json={"name": "flow", "workflow_definition": [{"type": "llm"}]},
    )
    assert made.status_code == 201
    workspace = Workspace.objects.get(personal_of=person.user)
    Budget.objects.create(workspace=workspace, kind=BudgetKind.RUNS, limit=1)
    provider.script("killed", endless(every=0.02))
    with streamed(None, dying, person, "[[killed]]") as response:  # type: ignore[arg-type]
        next(event for event in frames(response.iter_lines()) if event[0] == "text")
        run = UUID(response.headers["x-run-id"])
        dying.kill()

    sweeping.sweep()
    assert InteractionLog.objects.get(run_id=run).status == "started"  # its time isn't over
    InteractionLog.objects.filter(run_id=run).update(closes_by=timezone.now())
    assert Reservation.objects.filter(run_id=run).exists()
    assert sweeping.sweep() >= 1

    row = InteractionLog.objects.get(run_id=run)
    assert row.status == "interrupted"
    assert row.finished_at is not None
    assert not Reservation.objects.filter(run_id=run).exists()
