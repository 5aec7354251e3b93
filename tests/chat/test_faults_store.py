"""Valkey absent, killed, emptied, frozen: no socket closes, nothing is lost, and everyone is told."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis import Redis

from django_chain.embedded.valkey import Valkey
from tests.conftest import Person, side_by_side
from tests.support import oracle
from tests.support.client import Client
from tests.support.scripted_provider import Gate, ScriptedProvider, finish, ok, text, until, wait
from tests.support.server import Server
from tests.support.stage import no_traceback, talking


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server of our own; not started."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    yield server
    if server.pid is not None and server.running:
        os.kill(server.pid, signal.SIGCONT)
    server.stop()


@pytest.fixture(scope="module")
def pair(live_database: None, server_env: dict[str, str], valkey: Valkey) -> Iterator[tuple[Server, ...]]:
    """Two processes that were started while Valkey was away."""
    env = server_env | {"REDIS_URL": valkey.url}
    with side_by_side(Server(env), Server(env)) as servers:
        yield servers
        no_traceback(*servers)


async def test_a_server_starts_and_chats_without_valkey(
    pair: tuple[Server, Server], valkey: Valkey, person: Person, provider: ScriptedProvider
) -> None:
    first, second = pair
    session_id = person.new_session(first)
    async with person.client(first, session_id) as client, person.client(second, session_id) as watcher:
        assert not valkey.running
        for one in (client, watcher):
            await _told(one, "degraded")
        row = await client.ask("is anybody there?")
        assert row["status"] == "complete"
        # Nobody announces rows to the other process now; it looks for itself.
        await watcher.wait(lambda: watcher.seq == client.seq, 4)
        await asyncio.to_thread(valkey.start)
        for one in (client, watcher):
            await _told(one, "recovered")
        await _stream_to_both(client, watcher, provider)
        await oracle.check(session_id, client, watcher)


async def _told(client: Client, state: str) -> None:
    """Wait until the client's last word of the store is this."""

    def last() -> str:
        return next((f["type"] for f in reversed(client.frames) if f["type"] in ("degraded", "recovered")), "recovered")

    await client.wait(lambda: last() == state, 3)


async def _stream_to_both(client: Client, watcher: Client, provider: ScriptedProvider) -> None:
    gate = Gate()
    provider.script("again", text("as a "), wait(gate), text("stream"), ok())
    ack = await client.send("and now? [[again]]")
    await watcher.shows(ack["answer_id"], "as a ")
    gate.release()
    ours, theirs = await client.answer(ack["answer_id"]), await watcher.answer(ack["answer_id"])
    assert ours == theirs
    assert (ours["status"], ours["content"]) == ("complete", "as a stream")


@asynccontextmanager
async def a_stream_on_both(
    pair: tuple[Server, Server], valkey: Valkey, person: Person, provider: ScriptedProvider, name: str
) -> AsyncIterator[tuple[Client, Client, str]]:
    """An answer under way on the first process, watched on both; afterwards: complete, the same for all, no close."""
    if not valkey.running:
        await asyncio.to_thread(valkey.start)
    gate = Gate()
    provider.script(name, talking(gate), text("the end"), ok())
    session_id = person.new_session(pair[0])
    async with person.client(pair[0], session_id) as client, person.client(pair[1], session_id) as watcher:
        ack = await client.send(f"go on [[{name}]]")
        answer_id = ack["answer_id"]
        for one in (client, watcher):
            await one.shows(answer_id, "5 é")
            await _told(one, "recovered")
        yield client, watcher, answer_id
        gate.release()
        ours, theirs = await client.answer(answer_id), await watcher.answer(answer_id)
        assert ours == theirs
        assert ours["status"] == "complete"
        assert ours["content"].endswith("the end")
        assert ours["content"].split("🙂 ")[:50] == [f"{n} é…" for n in range(50)]
        for one in (client, watcher):
            assert one.close_code is None
            assert one.counts["welcome"] == 1
            assert not one.resets
        await _stream_to_both(client, watcher, provider)
        await oracle.check(session_id, client, watcher)


async def _grows(client: Client, answer_id: str, by: int = 300) -> None:
    size = len(client.texts[answer_id])
    await client.wait(lambda: len(client.texts[answer_id]) > size + by, 5)


async def test_valkey_killed_and_restarted_empty_in_mid_stream(
    pair: tuple[Server, Server], valkey: Valkey, person: Person, provider: ScriptedProvider
) -> None:
    async with a_stream_on_both(pair, valkey, person, provider, "store-killed") as (client, watcher, answer_id):
        valkey.kill()
        for one in (client, watcher):
            await _told(one, "degraded")
        await _grows(client, answer_id)
        async with person.client(pair[0], client.url.split("/")[-2]) as late:
            # One who comes to the owner meanwhile sees everything, too.
            await late.wait(lambda: late.texts.get(answer_id, b"").startswith("0 é".encode()))
            assert late.counts["degraded"]
        await asyncio.to_thread(valkey.start)
        for one in (client, watcher):
            await _told(one, "recovered")
        await watcher.wait(lambda: len(watcher.texts[answer_id]) >= len(client.texts[answer_id]) - 100, 3)
        await _grows(watcher, answer_id)


async def test_valkey_emptied_in_mid_stream(
    pair: tuple[Server, Server], valkey: Valkey, person: Person, provider: ScriptedProvider
) -> None:
    async with a_stream_on_both(pair, valkey, person, provider, "store-flushed") as (client, watcher, answer_id):
        await asyncio.to_thread(_execute, valkey, "FLUSHALL")
        await _grows(client, answer_id)
        await _grows(watcher, answer_id)
        async with person.client(pair[1], client.url.split("/")[-2]) as late:
            await late.shows(answer_id, "0 é")


async def test_valkey_emptied_while_an_answer_is_silent_is_written_anew(
    pair: tuple[Server, Server], valkey: Valkey, person: Person, provider: ScriptedProvider
) -> None:
    if not valkey.running:
        await asyncio.to_thread(valkey.start)
    gate = Gate()
    provider.script("silent", text("the first half, "), wait(gate), text("the second"), ok())
    session_id = person.new_session(pair[0])
    async with person.client(pair[0], session_id) as client:
        ack = await client.send("[[silent]]")
        await client.shows(ack["answer_id"], "first half")
        await asyncio.to_thread(_execute, valkey, "FLUSHALL")
        async with person.client(pair[1], session_id) as late:
            await late.shows(ack["answer_id"], "the first half", 4)
            gate.release()
            row = await late.answer(ack["answer_id"])
            assert row["content"] == "the first half, the second"
            await client.answer(ack["answer_id"])
            await oracle.check(session_id, client, late)


async def test_rows_that_could_not_be_published_are_announced_later(
    pair: tuple[Server, Server], valkey: Valkey, person: Person
) -> None:
    if not valkey.running:
        await asyncio.to_thread(valkey.start)
    session_id = person.new_session(pair[0])
    async with person.client(pair[0], session_id) as client, person.client(pair[1], session_id) as watcher:
        # Everything works but publishing, so the other process has no reason to look.
        await asyncio.to_thread(_execute, valkey, "ACL SETUSER default -publish")
        try:
            assert (await client.ask("does anybody hear me?"))["status"] == "complete"
        finally:
            await asyncio.to_thread(_execute, valkey, "ACL SETUSER default +publish")
        await watcher.wait(lambda: watcher.seq == client.seq, 4)
        await oracle.check(session_id, client, watcher)


def _execute(valkey: Valkey, command: str) -> None:
    with Redis.from_url(valkey.url) as client:
        client.execute_command(*command.split())


async def test_valkey_frozen_in_mid_stream(
    pair: tuple[Server, Server], valkey: Valkey, person: Person, provider: ScriptedProvider
) -> None:
    async with a_stream_on_both(pair, valkey, person, provider, "store-frozen") as (client, watcher, answer_id):
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            for one in (client, watcher):
                await _told(one, "degraded")
            await _grows(client, answer_id)
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        for one in (client, watcher):
            await _told(one, "recovered")
        await _grows(watcher, answer_id)


async def test_stop_reaches_the_other_process_without_valkey(
    pair: tuple[Server, Server], valkey: Valkey, person: Person, provider: ScriptedProvider
) -> None:
    if not valkey.running:
        await asyncio.to_thread(valkey.start)
    provider.script("stop-without", talking(Gate()), finish(), ok())
    session_id = person.new_session(pair[0])
    async with person.client(pair[0], session_id) as client, person.client(pair[1], session_id) as watcher:
        ack = await client.send("[[stop-without]]")
        await watcher.shows(ack["answer_id"], "3 é")
        valkey.kill()
        await _told(watcher, "degraded")
        assert (await watcher.stop(ack["answer_id"]))["type"] == "ack"
        assert await until(provider.exchanges("stop-without")[0].disconnected, 3)
        for one in (client, watcher):
            assert (await one.answer(ack["answer_id"]))["status"] == "stopped"
        await oracle.check(session_id, client, watcher)
        await asyncio.to_thread(valkey.start)
        for one in (client, watcher):
            await _told(one, "recovered")
