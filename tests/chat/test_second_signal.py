"""A second signal while a process ends: it doesn't wait, and nothing that the first one began is done twice."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from subprocess import TimeoutExpired

import httpx2 as httpx
import pytest

from tests.conftest import Person
from tests.support import oracle
from tests.support.scripted_provider import Gate, ScriptedProvider, ok, text
from tests.support.server import Server
from tests.support.stage import SHORT_LEASES, eventually, move, no_traceback, settings, talking

#: Nobody would wait for the end of this drain.
PATIENT = settings(CHAT={**SHORT_LEASES, "DRAIN_SECONDS": 30.0})


@pytest.fixture(scope="module")
def other(live_database: None, server_env: dict[str, str]) -> Iterator[Server]:
    """The process that people come back to."""
    with Server(server_env | PATIENT) as started:
        yield started
        no_traceback(started)


@pytest.fixture
def server(spawn: Callable[..., Server]) -> Iterator[Server]:
    """The one that is told to end."""
    started = spawn(env=PATIENT)
    yield started
    no_traceback(started)


@asynccontextmanager
async def half_a_request(server: Server, person: Person) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """A request whose body the server waits for; the call sends the rest, for its whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = ["POST /api/v1/sessions HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {person.token}"]
    head += ["Content-Type: application/json", "Content-Length: 2", "Expect: 100-continue", "", ""]
    writer.write("\r\n".join(head).encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 100")
    await reader.readline()

    async def rest() -> bytes:
        writer.write(b"{}")
        return await reader.read()

    try:
        yield rest
    finally:
        writer.close()


def ended_within(server: Server, seconds: float) -> bool:
    with suppress(TimeoutExpired):
        server.ended(seconds)
        return True
    return False


async def test_a_drain_that_ends_while_a_second_signal_ends_the_server_does_not_end_it_once_more(
    server: Server, other: Server, person: Person, provider: ScriptedProvider
) -> None:
    """The server is held in its own shutdown by a request, and the answer ends meanwhile, and so does the drain."""
    gate = Gate()
    provider.script("ends-late", talking(gate), text("the end"), ok())
    session_id = person.new_session(server)
    async with half_a_request(server, person) as finish, person.client(server, session_id) as client:
        ack = await client.send("[[ends-late]]")
        await client.shows(ack["answer_id"], "3 é")
        server.send_signal(signal.SIGTERM)
        await client.wait_frame(lambda frame: frame["type"] == "goodbye")
        server.send_signal(signal.SIGINT)
        assert await client.closed() == 1012  # by the server's own shutdown: the drain waits for the answer
        assert "action=drained" not in server.log_text()
        gate.release()
        await eventually(lambda: "action=drained" in server.log_text())
        assert (await finish()).startswith(b"HTTP/1.1 201")
        assert await asyncio.to_thread(server.ended) == 0
        await move(client, other, session_id)
        row = await client.answer(ack["answer_id"])
        assert (row["status"], row["content"].endswith("the end")) == ("complete", True)
        await oracle.check(session_id, client)


async def test_two_signals_that_come_before_the_drain_has_begun_are_two(
    server: Server, other: Server, person: Person, provider: ScriptedProvider
) -> None:
    provider.script("two-at-once", talking(Gate()))
    session_id = person.new_session(server)
    async with person.client(server, session_id) as client:
        ack = await client.send("[[two-at-once]]")
        await client.shows(ack["answer_id"], "3 é")
        for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
            server.send_signal(number)
        began = time.monotonic()
        assert await asyncio.to_thread(partial(server.ended, 20)) == 0
        assert time.monotonic() - began < 12
        await client.closed()
        await move(client, other, session_id)
        assert (await client.answer(ack["answer_id"], 10))["status"] == "interrupted"
        await oracle.check(session_id, client)


async def test_the_echo_of_a_stop_is_waited_for_like_the_stop(
    server: Server, other: Server, person: Person, provider: ScriptedProvider
) -> None:
    """A process group is told to end, and its supervisor tells the processes under it once more."""
    gate = Gate()
    provider.script("echo", talking(gate), text("the end"), ok())
    session_id = person.new_session(server)
    async with person.client(server, session_id) as client:
        ack = await client.send("[[echo]]")
        await client.shows(ack["answer_id"], "3 é")
        server.send_signal(signal.SIGTERM)
        await client.wait_frame(lambda frame: frame["type"] == "goodbye")
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            answered = await asyncio.to_thread(httpx.get, f"{server.url}/readyz")
        assert answered.status_code == 503, "a server that ends at once takes no connection"
        gate.release()
        await client.shows(ack["answer_id"], "the end")
        assert await client.closed() == 1012
        assert await asyncio.to_thread(server.ended) == 0
        assert "action=drained" in server.log_text()
        await move(client, other, session_id)
        assert (await client.answer(ack["answer_id"]))["status"] == "complete"
        await oracle.check(session_id, client)


async def test_a_stop_that_is_repeated_later_does_not_wait(
    server: Server, other: Server, person: Person, provider: ScriptedProvider
) -> None:
    provider.script("repeated", talking(Gate()))
    session_id = person.new_session(server)
    async with person.client(server, session_id) as client:
        ack = await client.send("[[repeated]]")
        await client.shows(ack["answer_id"], "3 é")
        server.send_signal(signal.SIGTERM)
        await client.wait_frame(lambda frame: frame["type"] == "goodbye")
        began = time.monotonic()
        while not await asyncio.to_thread(ended_within, server, 0.3):
            server.send_signal(signal.SIGTERM)
        assert time.monotonic() - began < 12
        await client.closed()
        await move(client, other, session_id)
        assert (await client.answer(ack["answer_id"], 10))["status"] == "interrupted"
