"""A server that is told to go ends its workflow runs, tells who reads them, and leaves no row open."""

import asyncio
import json
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import pytest

from accounts.models import Workspace
from llm.models import Budget, BudgetKind, Reservation
from tests.conftest import Person
from tests.execution.conftest import closed_rows
from tests.execution.test_rest_runs import frames
from tests.execution.test_socket import run, url
from tests.support.raw import Raw
from tests.support.scripted_provider import ScriptedProvider, endless, text
from tests.support.server import Server

Spawn = Callable[..., Server]


@pytest.fixture
def leaving(spawn: Spawn, server_env: dict[str, str], person: Person) -> Server:
    """A server with half a second for its last runs, and a workspace with a budget."""
    server = spawn(env=server_env | {"DJANGO_CHAIN_OVERRIDES": json.dumps({"CHAT": {"DRAIN_SECONDS": 0.5}})})
    made = httpx.post(
        f"{server.url}/api/v1/workflows",
        headers={"Authorization": f"Bearer {person.token}"},
        json={"name": "flow", "workflow_definition": [{"type": "llm"}]},
    )
    assert made.status_code == 201
    workspace = Workspace.objects.get(personal_of=person.user)
    Budget.objects.create(workspace=workspace, kind=BudgetKind.RUNS, limit=5)
    return server


def post(server: Server, person: Person, question: str, *, stream: bool) -> httpx.Response:
    return httpx.post(
        f"{server.url}/api/v1/workflows/flow/run",
        headers={"Authorization": f"Bearer {person.token}"},
        json={"question": question, "stream": stream},
        timeout=20,
    )


async def test_every_reader_is_told_and_every_row_is_closed(
    leaving: Server, person: Person, provider: ScriptedProvider
) -> None:
    for name in ("whole", "events", "socket"):
        provider.script(f"drained-{name}", text("one "), endless(every=0.02))
    with ThreadPoolExecutor() as threads:
        whole = threads.submit(post, leaving, person, "[[drained-whole]]", stream=False)
        events = threads.submit(post, leaving, person, "[[drained-events]]", stream=True)
        async with Raw(url(leaving)) as socket:
            await socket.hello(person.token)
            await run(socket, "one", "[[drained-socket]]")
            await socket.next("delta")
            exchanges = [
                await asyncio.to_thread(provider.wait_for, f"drained-{name}") for name in ("whole", "events", "socket")
            ]

            leaving.send_signal(signal.SIGTERM)
            await socket.next("goodbye")
            await run(socket, "late", "hello")
            refused = await socket.next("error")
            done = await socket.next("run.done")
            assert await socket.closed() == 1012

        assert refused["code"] == "draining"
        assert (done["id"], done["status"]) == ("one", "stopped")
        answer: dict[str, Any] = (await asyncio.to_thread(whole.result)).json()
        told = list(frames(iter((await asyncio.to_thread(events.result)).text.splitlines())))
    assert answer["status"] == "stopped"
    assert answer["text"].startswith("one ")
    assert (told[-1][0], told[-1][1]["status"]) == ("done", "stopped")
    assert all(exchange.disconnected.is_set() for exchange in exchanges)
    assert await asyncio.to_thread(leaving.ended) == 0
    assert {row.status for row in await asyncio.to_thread(closed_rows, person, within=0)} == {"stopped"}
    assert not await asyncio.to_thread(Reservation.objects.filter(workspace__personal_of=person.user).exists)
