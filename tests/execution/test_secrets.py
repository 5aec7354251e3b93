"""Forty secrets planted wherever text comes in, and looked for wherever something is logged, kept or told."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

from chat.models import Run
from llm.models import Activation, BudgetCounter, InteractionLog, Reservation
from tests.conftest import Person
from tests.execution.conftest import Api, closed_rows
from tests.execution.test_rest_runs import frames
from tests.support.raw import Raw
from tests.support.scripted_provider import ScriptedProvider, done, finish, status, text, usage
from tests.support.secrets import SECRETS
from tests.support.server import Server
from tests.support.stage import settings

ALL = "\n".join(planted for planted, _ in SECRETS.values())
ONE_LINE = " ; ".join(planted for planted, _ in SECRETS.values())
STEPS: list[dict[str, Any]] = [{"type": "leak"}, {"type": "llm", "stop": [ALL]}]
#: How a run with the secrets in its question goes on.
WAYS = ("[[raise]]", "[[typed]]", "[[refused]]", "[[answered]]")


def found_in(sink: object) -> list[str]:
    told = sink if isinstance(sink, str) else json.dumps(sink, default=str, ensure_ascii=False)
    # What stands in JSON has its quotes and line ends escaped.
    plain = told.replace("\\\\", "\\")
    return sorted({name for name, (_, secret) in SECRETS.items() if secret in told or secret in plain})


@pytest.fixture(scope="module")
def server(live_database: None, server_env: dict[str, str]) -> Iterator[Server]:
    """A server whose chats have the careless step too."""
    with Server(server_env | settings(CHAT={"DEFAULT_WORKFLOW": STEPS, "COMMANDS_PER_MINUTE": 100_000})) as found:
        yield found


@pytest.fixture
def leaky(api: Api, provider: ScriptedProvider) -> str:
    """A workflow with the careless step, at a provider that says in its errors whatever it was sent."""
    body = {"error": {"message": ONE_LINE, "type": ONE_LINE, "code": None}}
    provider.script("refused", status(400, headers={"X-Request-Id": ONE_LINE}, body=body))
    provider.script("answered", text("well"), finish(ONE_LINE), usage(), done())
    made = api("POST", "/workflows", json={"name": "leaky", "workflow_definition": STEPS})
    assert made.status_code == 201, made.text
    return "leaky"


@pytest.fixture
async def raw(server: Server, person: Person) -> Any:
    async with Raw(f"ws://127.0.0.1:{server.port}/ws/workflows/") as socket:
        await socket.hello(person.token)
        yield socket


def test_the_planted_secrets_are_found_where_nothing_takes_them_out() -> None:
    assert len(SECRETS) >= 40
    assert len(found_in(ALL)) == len(found_in({"a": [ONE_LINE]})) == len(SECRETS)


def test_neither_the_log_nor_its_rows_hold_one(api: Api, leaky: str, server: Server, person: Person) -> None:
    before = len(server.log_text())
    for way in WAYS:
        api("POST", f"/workflows/{leaky}/run", json={"question": f"{way}\n{ALL}", "variables": {"x": ALL}})

    rows = closed_rows(person)
    assert [row.status for row in rows] == ["failed", "failed", "failed", "ok"]
    assert rows[-1].prompt_text
    assert "[redacted:" in json.dumps(rows[-1].model_parameters)
    assert "[redacted:" in json.dumps(rows[-1].metadata)
    tables = (InteractionLog, Activation, Reservation, BudgetCounter, Run)
    kept = [list(table.objects.filter(workspace__memberships__user=person.user).values()) for table in tables]
    assert found_in(kept) == []
    log = server.log_text()[before:]
    assert log.count("action=leak") == len(WAYS)
    assert "RuntimeError" in log
    assert found_in(log) == []


def test_no_error_of_rest_holds_one(api: Api, leaky: str, server: Server) -> None:
    whole = [api("POST", f"/workflows/{leaky}/run", json={"question": way + ALL}) for way in WAYS[:3]]
    each = [
        response
        for planted, _ in SECRETS.values()
        for response in (
            api("POST", f"/workflows/{leaky}/run", json={"question": "x", planted: 1}),
            api("POST", "/workflows", json={"name": "x", "workflow_definition": [{"type": planted}]}),
            api("POST", "/workflows/validate", json={"workflow_definition": [{"type": "llm", "model": planted}]}),
        )
    ]
    assert {response.status_code // 100 for response in (*whole, *each)} <= {4, 5}
    assert "[redacted:" in whole[1].text
    assert found_in([response.text for response in (*whole, *each)]) == []


def test_no_stream_of_events_holds_one(api: Api, leaky: str, server: Server, person: Person) -> None:
    told: list[tuple[str, Any]] = []
    for way in WAYS:
        with httpx.stream(
            "POST",
            f"{server.url}/api/v1/workflows/{leaky}/run",
            headers={"Authorization": f"Bearer {person.token}"},
            json={"question": way + ALL, "stream": True},
            timeout=20,
        ) as response:
            told += frames(response.iter_lines())

    assert [name for name, _ in told].count("error") == 3
    assert any("[redacted:" in json.dumps(data) for name, data in told if name == "step")
    assert any("[redacted:" in json.dumps(data) for name, data in told if name == "error")
    assert found_in(told) == []
    assert "swordfish" not in json.dumps(told)


async def test_no_frame_of_the_workflows_socket_holds_one(raw: Raw, leaky: str) -> None:
    told: list[Any] = []
    for number, way in enumerate(WAYS):
        await raw.send({"type": "workflow.run", "id": f"r{number}", "workflow": leaky, "question": way + ALL})
        while not told or told[-1]["type"] != "run.done" or told[-1]["id"] != f"r{number}":
            told.append(await raw.next())
    assert any("[redacted:" in json.dumps(frame) for frame in told if frame["type"] == "step")
    assert any("[redacted:" in json.dumps(frame) for frame in told if frame["type"] == "run.done")
    told += [
        await raw.ask(frame, "error")
        for planted, _ in SECRETS.values()
        for frame in ({"type": planted}, {"type": "workflow.run", "id": "x", "workflow": planted, "question": ""})
    ]
    assert found_in(told) == []


async def test_no_frame_of_a_chat_holds_one(
    server: Server, person: Person, provider: ScriptedProvider, leaky: str
) -> None:
    session = await asyncio.to_thread(person.new_session, server)
    told: list[Any] = []
    async with Raw(server.socket_url(session)) as socket:
        await socket.hello(person.token)
        for number, way in enumerate(WAYS):
            await socket.send({"type": "message.send", "id": f"m{number}", "text": way + ALL})
            while True:
                told.append(await socket.next())
                row = told[-1].get("message", {})
                if row.get("role") == "ASSISTANT" and row["status"] != "pending":
                    break
        steps = [frame for frame in told if frame["type"] == "step"]
        told = [frame for frame in told if frame["type"] in ("step", "error")]
        for planted, _ in SECRETS.values():
            told.append(await socket.ask({"type": planted}, "error"))
            told.append(await socket.ask({"type": "message.send", "id": "x", "text": "x", planted: 1}, "error"))
    assert any("[redacted:" in json.dumps(frame) for frame in steps)
    assert found_in(told) == []
    assert "swordfish" not in json.dumps(told)
