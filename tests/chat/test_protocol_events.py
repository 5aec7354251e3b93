"""Every event of the protocol, seen on a socket, with exactly the fields of its type."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from accounts.models import Workspace
from chat.protocol import EVENTS, Event
from django_chain.embedded.valkey import Valkey
from kernel import database
from tests.chat.conftest import KINDS
from tests.conftest import Person
from tests.support import scripted_provider as script
from tests.support.client import Client
from tests.support.server import Server
from vectorstore.manager import VectorStoreManager
from vectorstore.values import SourceDocument

TYPES: dict[str, type[Event]] = {str(kind.__struct_config__.tag): kind for kind in EVENTS}
SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "x200-warranty.md"


def as_described(frames: list[dict[str, Any]]) -> None:
    """Each frame converts to its type, and has no field that the type doesn't know."""
    for frame in frames:
        kind = TYPES[frame["type"]]
        msgspec.convert(frame, kind, strict=False)
        assert frame.keys() - {"type"} <= set(kind.__struct_fields__), frame
        if frame["type"] == "message":
            assert frame["message"].keys() == {field.name for field in msgspec.structs.fields(type_of_message(kind))}


def type_of_message(kind: type[Event]) -> Any:
    return next(field.type for field in msgspec.structs.fields(kind) if field.name == "message")


# How each is brought about; each returns when it was seen. -----------------------------------------------------------


async def plain_turn(client: Client, provider: Any, person: Person) -> None:
    row = await client.ask("hello")
    assert row["status"] == "complete"
    assert client.counts["delta"]


async def an_error(client: Client, provider: Any, person: Person) -> None:
    assert (await client.send(" "))["code"] == "empty_text"


async def a_ping(client: Client, provider: Any, person: Person) -> None:
    await client.send_json({"type": "ping"})
    await client.wait(lambda: client.counts["pong"])


async def a_step(client: Client, provider: Any, person: Person) -> None:
    gate = script.Gate()
    marker = provider.script(f"step-{uuid4().hex[:6]}", script.text("a"), script.wait(gate), script.ok())
    first, second = await client.send(marker), await client.send("behind it")
    queued = await client.wait_frame(lambda frame: frame["type"] == "step" and frame["state"] == "queued")
    assert queued["message_id"] == second["answer_id"]
    assert queued["detail"]["place"] == 1
    gate.release()
    await client.answer(first["answer_id"])
    await client.answer(second["answer_id"])
    steps = [(frame["name"], frame["state"]) for frame in client.frames if frame["type"] == "step"]
    assert ("retrieve", "started") in steps
    assert ("retrieve", "finished") in steps


async def sources(client: Client, provider: Any, person: Person) -> None:
    workspace = await database.run(Workspace.objects.get, personal_of_id=person.user.pk)
    document = SourceDocument(source=SAMPLE.name, text=SAMPLE.read_text(), markdown=True)
    await VectorStoreManager(workspace.id).ingest([document])
    row = await client.ask("How long is the warranty of the X200?")
    shown = await client.wait_frame(lambda frame: frame["type"] == "sources")
    assert shown["message_id"] == row["id"]
    assert [hit | {"cited": row["sources"][n]["cited"]} for n, hit in enumerate(shown["hits"])] == row["sources"]
    assert "24 months" in shown["hits"][0]["text"]
    assert [hit["n"] for hit in shown["hits"]] == list(range(1, len(shown["hits"]) + 1))
    kinds = [frame["type"] for frame in client.frames if frame.get("message_id") == row["id"]]
    assert kinds.index("sources") < kinds.index("delta"), "sources come before the text that cites them"


async def a_reset(client: Client, provider: Any, person: Person) -> None:
    await client.disconnect()
    client.seq = 10**6
    await client.connect()
    await client.wait(lambda: client.resets)


SCENES: dict[str, Callable[[Client, Any, Person], Awaitable[None]]] = {
    "welcome": plain_turn,
    "ack": plain_turn,
    "message": plain_turn,
    "delta": plain_turn,
    "error": an_error,
    "pong": a_ping,
    "step": a_step,
    "sources": sources,
    "reset": a_reset,
}
#: These need a process or a store of their own: see below, and test_protocol_bounds for `goodbye`.
ELSEWHERE = {"degraded", "recovered", "goodbye"}


def test_every_event_has_a_scene() -> None:
    assert set(TYPES) == set(SCENES) | ELSEWHERE


@pytest.mark.parametrize(
    "scene", sorted(set(SCENES.values()), key=lambda one: one.__name__), ids=lambda one: one.__name__
)
async def test_events_come_as_described(
    server: Server, person: Person, provider: Any, scene: Callable[[Client, Any, Person], Awaitable[None]]
) -> None:
    async with person.client(server, person.new_session(server)) as client:
        await scene(client, provider, person)
        as_described(client.frames)
        assert {name for name, one in SCENES.items() if one is scene} <= set(client.counts)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_store_that_goes_and_returns_is_told(spawn: Any, person: Person, valkey: Valkey, kind: str) -> None:
    server = spawn(kind=kind, env={"REDIS_URL": valkey.url})
    async with person.client(server, person.new_session(server)) as client:
        await asyncio.to_thread(valkey.stop)
        await client.wait(lambda: client.counts["degraded"])
        assert (await client.ask("still there?"))["status"] == "complete"
        await asyncio.to_thread(valkey.start)
        await client.wait(lambda: client.counts["recovered"])
        as_described(client.frames)
    assert "Traceback" not in server.log_text()
