"""Bounds of time and rate, and what ends a socket while it is open: each is announced and closes with its own code."""

import asyncio
import json
import signal
import time
from contextlib import suppress
from typing import Any

import pytest
from django.contrib.sessions.backends.db import SessionStore
from websockets.exceptions import ConnectionClosed

from chat.protocol import Close
from kernel import database
from tests.conftest import Person
from tests.support import scripted_provider as script
from tests.support.raw import Raw
from tests.support.server import Server


@pytest.fixture(scope="module")
def chat_options() -> dict[str, Any]:
    return {
        "HELLO_TIMEOUT": 1.0,
        "COMMANDS_PER_MINUTE": 120,
        "TOKEN_LIFETIME": 5.0,
        "REVALIDATE_SECONDS": 0.5,
        "MAX_SOCKETS_PER_PROCESS": 10,
        "RECONNECT_SPREAD": 0.2,
        "DRAIN_SECONDS": 3.0,
    }


BURST = 20


# Time ----------------------------------------------------------------------------------------------------------------


async def test_without_hello_in_time_the_socket_is_closed(server: Server, person: Person) -> None:
    async with Raw(server.socket_url(person.new_session(server))) as raw:
        began = time.monotonic()
        assert await raw.alive()  # a ping is no hello
        assert (await raw.next())["code"] == "hello_timeout"
        assert await raw.closed() == Close.PROTOCOL
        assert 0.8 < time.monotonic() - began < 3


async def test_refused_hellos_dont_extend_the_time(server: Server, person: Person) -> None:
    async with Raw(server.socket_url(person.new_session(server))) as raw:
        await asyncio.sleep(0.6)
        assert (await raw.ask('{"type": "hello", "seq": -1}'))["code"] == "invalid_frame"
        assert (await raw.next())["code"] == "hello_timeout"
        assert await raw.closed() == Close.PROTOCOL


async def test_a_token_expires_also_for_an_open_socket(server: Server, person: Person) -> None:
    session_id = person.new_session(server)
    async with Raw(server.socket_url(session_id)) as raw:
        await raw.hello(person.token)
        assert (await raw.next("error"))["code"] == "sign_in_required"
        assert await raw.closed() == Close.SIGN_IN
    async with Raw(server.socket_url(session_id)) as raw:
        assert (await raw.hello(person.token))["code"] == "sign_in_required"
        assert await raw.closed() == Close.SIGN_IN


# Rate ----------------------------------------------------------------------------------------------------------------


async def test_too_many_commands_are_refused_each_by_its_id(raw: Raw) -> None:
    for number in range(BURST + 5):
        await raw.send({"type": "turn.stop", "message_id": "00000000-0000-0000-0000-000000000000", "id": f"s{number}"})
    answers = [await raw.next() for _ in range(BURST + 5)]
    assert {one["id"] for one in answers} == {f"s{number}" for number in range(BURST + 5)}
    limited = [one for one in answers if one["code"] == "rate_limited"]
    assert limited
    assert all(0 < one["retry_after"] <= 1 for one in limited)
    await asyncio.sleep(max(one["retry_after"] for one in limited) + 0.1)
    assert await raw.alive()


async def test_a_flood_of_commands_closes_the_socket(raw: Raw) -> None:
    for _ in range(BURST + 230):
        await raw.send({"type": "ping"})
    heard = []
    with suppress(ConnectionClosed):
        while True:
            heard.append(await raw.next())
    assert raw.socket.close_code == Close.RATE_LIMIT
    assert {frame.get("code") for frame in heard} == {None, "rate_limited"}
    assert heard[-1]["code"] == "rate_limited"
    assert len(heard) <= BURST + 220


async def test_one_sockets_flood_doesnt_touch_another(raw: Raw, server: Server, other: Person) -> None:
    for _ in range(BURST + 20):
        await raw.send({"type": "ping"})
    async with Raw(server.socket_url(other.new_session(server))) as second:
        assert (await second.hello(other.token))["type"] == "welcome"
        assert await second.alive()


# Rights that end -----------------------------------------------------------------------------------------------------


async def test_signing_out_ends_the_sockets_of_that_cookie(
    server: Server, person: Person, cookie: tuple[str, str]
) -> None:
    async with Raw(server.socket_url(person.new_session(server)), headers=[cookie]) as raw:
        assert (await raw.hello())["type"] == "welcome"
        await database.run(SessionStore(cookie[1].partition("=")[2]).flush)
        assert (await raw.next("error"))["code"] == "sign_in_required"
        assert await raw.closed() == Close.SIGN_IN


async def test_a_removed_members_sockets_end_and_others_stay(
    server: Server, person: Person, other: Person, cookie: tuple[str, str]
) -> None:
    async with (
        Raw(server.socket_url(person.new_session(server)), headers=[cookie]) as raw,
        Raw(server.socket_url(other.new_session(server))) as second,
    ):
        await raw.hello()
        await second.hello(other.token)
        await database.run(person.user.memberships.all().delete)
        assert (await raw.next("error"))["code"] == "not_found"
        assert await raw.closed() == Close.FORBIDDEN
        assert await second.alive()


async def test_a_deactivated_persons_sockets_end(server: Server, person: Person) -> None:
    async with Raw(server.socket_url(person.new_session(server))) as raw:
        await raw.hello(person.token)
        person.user.is_active = False
        await database.run(person.user.save)
        assert (await raw.next("error"))["code"] == "sign_in_required"
        assert await raw.closed() == Close.SIGN_IN


# Room ----------------------------------------------------------------------------------------------------------------


async def test_a_full_process_sends_further_sockets_away(server: Server, person: Person) -> None:
    session_id = person.new_session(server)
    taken = []
    try:
        for _ in range(10):
            taken.append(await Raw(server.socket_url(session_id)).__aenter__())
            assert (await taken[-1].hello(person.token))["type"] == "welcome"
        async with Raw(server.socket_url(session_id)) as raw:
            goodbye = await raw.next()
            assert (goodbye["type"], goodbye["reason"]) == ("goodbye", "full")
            assert goodbye["reconnect_after"] > 0
            assert await raw.closed() == Close.RESTART
        assert await taken[0].alive()
    finally:
        for one in taken:
            await one.socket.close()


@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
async def test_a_draining_process_says_goodbye_finishes_and_closes_with_1012(
    spawn: Any, person: Person, provider: Any, chat_options: dict[str, Any], kind: str
) -> None:
    options = {"CHAT": {"DRAIN_SECONDS": 10, "RECONNECT_SPREAD": 0.2}}
    server = spawn(kind=kind, env={"DJANGO_CHAIN_OVERRIDES": json.dumps(options)})
    session_id = person.new_session(server)
    gate = script.Gate()
    marker = provider.script(f"drain-{kind}", script.text("one"), script.wait(gate), script.text(" two"), script.ok())
    async with person.client(server, session_id) as client:
        ack = await client.send(marker)
        await client.shows(ack["answer_id"], "one")
        server.send_signal(signal.SIGTERM)
        goodbye = await client.wait_frame(lambda frame: frame["type"] == "goodbye")
        assert goodbye["reason"] == "restart"
        assert (await client.send("too late"))["code"] == "draining"
        async with Raw(server.socket_url(session_id)) as late:
            assert (await late.next())["type"] == "goodbye"
            assert await late.closed() == Close.RESTART
        gate.release()
        assert (await client.answer(ack["answer_id"]))["content"] == "one two"
        assert await client.closed() == Close.RESTART
    server.stop()
    assert "Traceback" not in server.log_text()
