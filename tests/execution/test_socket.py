"""Workflows over their socket: several at once, stopped, refused, gone with the socket."""

import asyncio
import time
from typing import Any

from tests.conftest import Person
from tests.execution.conftest import Api, closed_rows
from tests.support.raw import Raw
from tests.support.scripted_provider import Gate, ScriptedProvider, endless, ok, status, text, until, wait
from tests.support.server import Server


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}/ws/workflows/"


async def run(socket: Raw, id: str, question: str = "x", workflow: str = "flow", **more: Any) -> None:
    await socket.send({"type": "workflow.run", "id": id, "workflow": workflow, "question": question, **more})


async def test_a_run_says_everything_that_happens(
    api: Api, flow: str, server: Server, person: Person, provider: ScriptedProvider
) -> None:
    gate = Gate()
    provider.script("said", text("Grüße "), wait(gate), text("all"), ok())
    async with Raw(url(server)) as socket:
        assert (await socket.hello(person.token))["runs"] == 8
        await run(socket, "one", "[[said]]")
        ack = await socket.next("ack", "error")
        first = await socket.next("delta")
        assert not gate.is_open()
        gate.release()
        second = await socket.next("delta")
        output, done = await socket.next("output"), await socket.next("run.done")

    assert (ack["id"], ack["run_id"]) == ("one", done["run_id"])
    assert (first["offset"], first["end"], first["text"]) == (0, 8, "Grüße ")
    assert (second["offset"], second["text"]) == (8, "all")
    assert output["value"] == "Grüße all"
    assert (done["id"], done["status"], done["usage"]["calls"]) == ("one", "ok", 1)


async def test_two_runs_go_on_side_by_side_and_one_is_stopped(
    api: Api, flow: str, server: Server, person: Person, provider: ScriptedProvider
) -> None:
    name = f"long-{server.kind}"
    provider.script(name, endless(every=0.02))
    provider.script("short", text("done"), ok())
    async with Raw(url(server)) as socket:
        await socket.hello(person.token)
        await run(socket, "long", f"[[{name}]]")
        await socket.next("delta")
        await run(socket, "long", "again")
        assert (await socket.next("error"))["code"] == "id_conflict"
        await run(socket, "short", "[[short]]")
        assert (await socket.next("run.done"))["id"] == "short"
        await socket.send({"type": "run.stop", "id": "long"})
        stopped = time.monotonic()
        done = await socket.next("run.done")
        assert (done["id"], done["status"]) == ("long", "stopped")
        exchange = provider.wait_for(name)
        assert await until(exchange.disconnected)
        assert exchange.disconnected_at is not None
        assert exchange.disconnected_at - stopped < 1
        await socket.send({"type": "run.stop", "id": "long"})
        assert (await socket.next("error"))["code"] == "not_found"
    assert sorted(row.status for row in await asyncio.to_thread(closed_rows, person)) == ["ok", "stopped"]


async def test_a_ninth_run_has_to_wait(
    api: Api, flow: str, server: Server, person: Person, provider: ScriptedProvider
) -> None:
    provider.script("many", endless(every=0.05))
    async with Raw(url(server)) as socket:
        await socket.hello(person.token)
        for number in range(9):
            await run(socket, f"r{number}", "[[many]]")
        refused = await socket.next("error")
        assert (refused["id"], refused["code"]) == ("r8", "busy")


async def test_runs_end_with_their_socket(
    api: Api, flow: str, server: Server, person: Person, provider: ScriptedProvider
) -> None:
    name = f"left-{server.kind}"
    provider.script(name, endless(every=0.02))
    async with Raw(url(server)) as socket:
        await socket.hello(person.token)
        await run(socket, "one", f"[[{name}]]")
        await socket.next("delta")
        left = time.monotonic()
    exchange = provider.wait_for(name)
    assert await until(exchange.disconnected)
    assert exchange.disconnected_at is not None
    assert exchange.disconnected_at - left < 1
    assert [row.status for row in await asyncio.to_thread(closed_rows, person)] == ["stopped"]


async def test_a_failure_is_typed(
    api: Api, flow: str, server: Server, person: Person, other: Person, provider: ScriptedProvider
) -> None:
    provider.script("refused", status(400))
    async with Raw(url(server)) as socket:
        await socket.hello(person.token)
        await run(socket, "one", "[[refused]]")
        done = await socket.next("run.done")
        assert (done["status"], done["code"]) == ("failed", "provider_refused")
        await run(socket, "two", workflow="nothing")
        assert (await socket.next("error"))["code"] == "not_found"
    async with Raw(url(server)) as socket:
        await socket.hello(other.token)
        await run(socket, "three")
        assert (await socket.next("error"))["code"] == "not_found"


async def test_bad_frames_are_refused_and_the_socket_stays(server: Server, person: Person) -> None:
    async with Raw(url(server)) as socket:
        early = await socket.ask({"type": "workflow.run", "id": "a", "workflow": "flow"})
        assert early["code"] == "hello_first"
        await socket.hello(person.token)
        for frame in (
            "{", {"type": "message.send", "id": "a", "text": "x"}, {"type": "workflow.run", "id": "a"},
            {"type": "workflow.run", "id": "a", "workflow": "flow", "version": 0}, {"type": "run.stop"},
        ):  # fmt: skip
            assert (await socket.ask(frame))["code"] == "invalid_frame"
        assert (await socket.ask(b"x"))["code"] == "binary_frame"
        assert await socket.alive()


async def test_only_who_may_be_here_is_let_in(server: Server, cookie: tuple[str, str]) -> None:
    async with Raw(url(server)) as socket:
        assert (await socket.hello("nonsense"))["code"] == "sign_in_required"
        assert await socket.closed() == 4001
    async with Raw(url(server), headers=[cookie], origin="https://evil.example") as socket:
        assert (await socket.hello())["code"] == "origin_not_allowed"
        assert await socket.closed() == 4003
    async with Raw(url(server), headers=[cookie], origin=server.url) as socket:
        assert (await socket.hello())["type"] == "welcome"
