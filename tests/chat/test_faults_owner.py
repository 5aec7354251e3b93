"""A process that stalls longer than its lease, and processes that are asked to end."""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from chat.models import Run
from kernel import database
from tests.conftest import Person, side_by_side
from tests.support import oracle
from tests.support.client import Client
from tests.support.scripted_provider import Gate, ScriptedProvider, ok, text, until, wait
from tests.support.server import Server
from tests.support.stage import SHORT_LEASES, eventually, move, no_traceback, settings, talking


@pytest.fixture(scope="module")
def pair(live_database: None, server_env: dict[str, str]) -> Iterator[tuple[Server, ...]]:
    env = server_env | settings(CHAT={**SHORT_LEASES, "DRAIN_SECONDS": 3.0, "RECONNECT_SPREAD": 1.0})
    with side_by_side(Server(env), Server(env)) as servers:
        yield servers
        no_traceback(*servers)


@pytest.fixture
def both(pair: tuple[Server, Server]) -> tuple[Server, Server]:
    for server in pair:
        if server.process is not None and server.process.poll() is not None:
            server.start()
    return pair


async def test_an_owner_that_stalls_past_its_lease_loses_its_run_and_writes_nothing_more(
    both: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    """One answer with text, one without: the first is marked, the second is answered by the other process.

    The provider has ended both by the time the old owner wakes: it finds the ends in its sockets before anything else.
    """
    first, second = both
    gates, onward = (Gate(), Gate()), Gate()
    provider.script("stalled", talking(gates[0]), text("the late end"), ok())
    provider.script_tries(
        "stalled-early", [wait(gates[1]), text("late"), ok()], [text("by "), wait(onward), text("another"), ok()]
    )
    sessions = person.new_session(first), person.new_session(first)
    async with AsyncExitStack() as stack:
        ours = [await stack.enter_async_context(person.client(first, one)) for one in sessions]
        theirs = [await stack.enter_async_context(person.client(second, one)) for one in sessions]
        acks = [
            await client.send(f"[[{name}]]") for client, name in zip(ours, ("stalled", "stalled-early"), strict=True)
        ]
        answers = [ack["answer_id"] for ack in acks]
        await theirs[0].shows(answers[0], "9 é")
        await asyncio.to_thread(provider.wait_for, "stalled-early")
        first.send_signal(signal.SIGSTOP)
        try:
            interrupted = await theirs[0].answer(answers[0], 8)
            await theirs[1].shows(answers[1], "by ", 8)
            for gate, name in zip(gates, ("stalled", "stalled-early"), strict=True):
                gate.release()
                assert await until(provider.exchanges(name)[0].finished)
        finally:
            first.send_signal(signal.SIGCONT)
        await ours[1].shows(answers[1], "by ")
        assert (await ours[1].send("one more"))["type"] == "ack"  # it has been awake for a while now
        onward.release()
        anew = await theirs[1].answer(answers[1])
        assert (interrupted["status"], anew["status"], anew["content"]) == ("interrupted", "complete", "by another")
        # The old owner's own sockets learn the same, and nothing that contradicts it.
        assert await ours[0].answer(answers[0]) == interrupted
        assert await ours[1].answer(answers[1]) == anew
        for client, other, session_id in zip(ours, theirs, sessions, strict=True):
            assert (await client.ask("next"))["status"] == "complete"
            await other.wait(lambda client=client, other=other: client.seq == other.seq)
            await oracle.check(session_id, client, other)


async def test_a_stalled_owners_model_call_is_cancelled_when_it_wakes(
    both: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    first, second = both
    provider.script("wakes", talking(Gate()), ok())
    session_id = person.new_session(first)
    async with person.client(first, session_id) as client, person.client(second, session_id) as other:
        ack = await client.send("[[wakes]]")
        await other.shows(ack["answer_id"], "3 é")
        first.send_signal(signal.SIGSTOP)
        try:
            row = await other.answer(ack["answer_id"], 8)
        finally:
            first.send_signal(signal.SIGCONT)
        assert await until(provider.exchanges("wakes")[0].disconnected, 3)
        assert row["status"] == "interrupted"
        assert await client.answer(ack["answer_id"]) == row
        await oracle.check(session_id, client, other)


async def test_an_answer_that_kills_every_process_is_given_up(
    both: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    """Bounded attempts: a run that nobody could begin to answer ends typed, and its session goes on."""
    server = both[0]
    gate = Gate()
    provider.script("never", wait(gate), ok())
    session_id = person.new_session(server)
    async with person.client(server, session_id) as client:
        ack = await client.send("[[never]]")
        await asyncio.to_thread(provider.wait_for, "never")

        def abandon() -> int:
            """As if three processes had died over it."""
            return Run.objects.filter(message_id=ack["answer_id"]).update(
                owner="dead", attempt=3, lease_expires_at=Now() - timedelta(seconds=1)
            )

        assert await database.run(abandon) == 1
        row = await client.answer(ack["answer_id"])
        assert (row["status"], row["error_code"], row["content"]) == ("failed", "attempts_exhausted", "")
        assert await until(provider.exchanges("never")[0].disconnected)
        assert (await client.ask("next"))["status"] == "complete"
        await oracle.check(session_id, client)


async def test_sigterm_finishes_or_hands_over_and_closes_every_socket_with_1012(
    both: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    first, second = both
    ending, staying = Gate(), Gate()
    provider.script("ends", talking(ending, every=0.05), text("the end"), ok())
    provider.script("stays", talking(staying, every=0.05), ok())
    provider.script_tries("silent-so-far", [wait(staying)], [text("by another"), ok()])
    names = ["ends"] * 5 + ["stays"] * 5 + ["silent-so-far"] * 2
    turns = [await _turn(first, person, name) for name in names]
    idle = [await _idle(first, person) for _ in range(10)]
    everyone = [client for _, client, _ in turns] + idle
    for (_, client, answer_id), name in zip(turns, names, strict=True):
        if name != "silent-so-far":
            await client.shows(answer_id, "3 é")
    await eventually(lambda: len(provider.exchanges("silent-so-far")) >= 2)

    began = time.monotonic()
    first.send_signal(signal.SIGTERM)
    for client in everyone:
        said = await client.wait_frame(lambda frame: frame["type"] == "goodbye")
        assert 0 < said["reconnect_after"] <= 1
    refused = await turns[0][1].send("too late")
    assert (refused["type"], refused["code"]) == ("error", "draining")
    assert refused["retry_after"] > 0
    ending.release()
    for _, client, answer_id in turns[:5]:
        assert (await client.answer(answer_id))["status"] == "complete"
    codes = await asyncio.gather(*(client.closed() for client in everyone))
    assert set(codes) == {1012}
    assert await asyncio.to_thread(first.ended) == 0
    assert time.monotonic() - began < 8
    # What was handed over is settled by the other process, at once: nobody waits for a lease.
    for (session_id, client, answer_id), name in zip(turns, names, strict=True):
        await move(client, second, session_id)
        row = await client.answer(answer_id, 5)
        assert row["status"] == {"ends": "complete", "stays": "interrupted", "silent-so-far": "complete"}[name]
        assert (await client.ask("next"))["status"] == "complete"
        await oracle.check(session_id, client)
        await client.disconnect()
    assert time.monotonic() - began < 15
    assert all(exchange.disconnected.is_set() for exchange in provider.exchanges("stays"))


async def _turn(server: Server, person: Person, name: str) -> tuple[str, Client, str]:
    session_id = await asyncio.to_thread(person.new_session, server)
    client = person.client(server, session_id)
    await client.connect()
    ack = await client.send(f"[[{name}]]")
    return session_id, client, ack["answer_id"]


async def _idle(server: Server, person: Person) -> Client:
    client = person.client(server, await asyncio.to_thread(person.new_session, server))
    await client.connect()
    return client


async def test_a_second_signal_does_not_wait(
    both: tuple[Server, Server], server_env: dict[str, str], person: Person, provider: ScriptedProvider
) -> None:
    env = server_env | settings(CHAT={**SHORT_LEASES, "DRAIN_SECONDS": 30.0})
    with side_by_side(Server(env), Server(env, kind="daphne")) as servers:
        await asyncio.gather(*(_end_at_once(server, both[1], person, provider) for server in servers))


async def _end_at_once(server: Server, other: Server, person: Person, provider: ScriptedProvider) -> None:
    name = f"twice-{server.kind}"
    provider.script(name, talking(Gate()))
    session_id, client, answer_id = await _turn(server, person, name)
    await client.shows(answer_id, "3 é")
    server.send_signal(signal.SIGTERM)
    await client.wait_frame(lambda frame: frame["type"] == "goodbye")
    began = time.monotonic()
    server.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(server.ended) == 0
    assert time.monotonic() - began < 12
    await client.closed()
    await move(client, other, session_id)
    assert (await client.answer(answer_id, 10))["status"] == "interrupted"
    await oracle.check(session_id, client)
    await client.disconnect()
    no_traceback(server)
