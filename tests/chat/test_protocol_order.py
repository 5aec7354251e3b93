"""The order of commands, cursors that can't be served, repeated ids: what a client may do at which time."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from chat import protocol
from kernel import database
from tests.conftest import Person
from tests.support import scripted_provider as script
from tests.support.client import Client
from tests.support.raw import Raw
from tests.support.server import Server

FAR = 2**53 - 1


async def open_raw(server: Server, person: Person, **hello: Any) -> Raw:
    raw = await Raw(server.socket_url(person.new_session(server))).__aenter__()
    assert (await raw.hello(person.token, **hello))["type"] == "welcome"
    return raw


# Hello ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        {"type": "message.send", "id": "early", "text": "hello"},
        {"type": "turn.stop", "message_id": str(uuid4()), "id": "early"},
    ],
)
async def test_a_command_before_hello_is_refused_and_hello_still_works(
    server: Server, person: Person, command: dict[str, Any]
) -> None:
    async with Raw(server.socket_url(person.new_session(server))) as raw:
        answer = await raw.ask(command)
        assert (answer["code"], answer["id"]) == ("hello_first", "early")
        assert (await raw.ask({"type": "seen", "frames": 1}))["code"] == "hello_first"
        assert await raw.alive()
        assert (await raw.hello(person.token))["type"] == "welcome"


async def test_a_second_hello_is_refused_and_the_socket_lives(raw: Raw, person: Person) -> None:
    assert (await raw.hello(person.token))["code"] == "already_greeted"
    assert await raw.alive()


async def test_a_second_hello_cannot_change_who_one_is(raw: Raw, other: Person) -> None:
    assert (await raw.hello(other.token))["code"] == "already_greeted"
    assert (await raw.ask({"type": "message.send", "id": "mine", "text": "still me"}))["type"] == "ack"


async def test_commands_right_behind_hello_wait_for_welcome(server: Server, person: Person) -> None:
    async with Raw(server.socket_url(person.new_session(server))) as raw:
        await raw.send({"type": "hello", "token": person.token})
        for number in range(3):
            await raw.send({"type": "message.send", "id": f"m{number}", "text": str(number)})
        assert (await raw.next())["type"] == "welcome"
        acks = [await raw.next("ack", "error") for _ in range(3)]
        assert [ack["id"] for ack in acks] == ["m0", "m1", "m2"]
        assert [ack["seq"] for ack in acks] == sorted({ack["seq"] for ack in acks})


async def test_welcome_says_where_one_is_and_what_one_may(server: Server, person: Person) -> None:
    session_id = person.new_session(server, title="Warranty")
    async with Raw(server.socket_url(session_id)) as raw:
        welcome = await raw.hello(person.token)
    assert welcome["session"] == {"id": session_id, "title": "Warranty"}
    assert welcome["you"] == {"id": str(person.user.pk), "name": person.user.get_username()}
    assert welcome["version"] == protocol.VERSION
    assert welcome["seq"] == 0
    assert welcome["epoch"]
    assert welcome["limits"] == {
        "frame": 65_536,
        "text": 32_000,
        "page": 50,
        "credit": None if server.kind == "uvicorn" else 262_144,
    }


@pytest.mark.parametrize("seed", range(6))
async def test_commands_in_any_order_are_each_answered(server: Server, person: Person, seed: int) -> None:
    chance = random.Random(seed)
    async with Raw(server.socket_url(person.new_session(server))) as raw:
        sent: list[dict[str, Any]] = []
        for number in range(40):
            kind = chance.choice(["hello", "message.send", "message.send", "turn.stop", "ping", "seen"])
            more = {
                "hello": {"token": person.token, "seq": chance.choice([0, 1, FAR]), "streams": {str(uuid4()): 9}},
                "message.send": {"id": f"m{chance.randint(0, 5)}", "text": f"text {chance.randint(0, 1)}"},
                "turn.stop": {"message_id": str(uuid4()), "id": f"s{number}"},
            }
            sent.append({"type": kind, **more.get(kind, {})})
            await raw.send(sent[-1])
        asked = Counter(frame["type"] for frame in sent)
        got: Counter[str] = Counter()
        wanted = 40 - asked["seen"] + first_hello(sent)
        while sum(got[kind] for kind in ("ack", "error", "pong", "welcome")) < wanted:
            frame = await raw.next()
            got[frame["type"]] += 1
            if frame["type"] == "error":
                assert frame["code"] in protocol.ERROR_CODES
                assert frame["code"] not in ("internal", "invalid_frame")
        assert got["pong"] == asked["ping"]
        assert got["welcome"] == (asked["hello"] > 0)
        assert await raw.alive()


def first_hello(sent: list[dict[str, Any]]) -> int:
    """How many `seen` came before the first hello: those are refused, the others not answered."""
    kinds = [frame["type"] for frame in sent]
    return kinds[: kinds.index("hello") if "hello" in kinds else None].count("seen")


# Cursors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [1, 1000, FAR])
async def test_a_cursor_from_the_future_is_reset_to_the_first_page(server: Server, person: Person, ahead: int) -> None:
    client = person.client(server, person.new_session(server))
    async with client:
        await client.ask("hello")
    client.seq = min(client.seq + ahead, FAR)
    known, client.frames = client.messages, []
    async with client:
        await client.wait(lambda: client.resets and client.messages == known)
    kinds = [frame["type"] for frame in client.frames]
    assert kinds[:2] == ["welcome", "reset"]
    assert client.resets == 1


async def test_a_cursor_of_another_session_never_shows_that_session(server: Server, person: Person) -> None:
    first = person.client(server, person.new_session(server))
    async with first:
        answer = await first.ask("hello")
    async with Raw(server.socket_url(person.new_session(server))) as raw:
        await raw.hello(person.token, seq=0, streams={answer["id"]: 3, str(uuid4()): FAR})
        assert (await raw.ask({"type": "ping"}))["type"] == "pong"
        assert raw.received == 2


async def test_unknown_and_finished_answers_in_hello_are_ignored(server: Server, person: Person) -> None:
    client = person.client(server, person.new_session(server))
    async with client:
        answer = await client.ask("hello")
        seen = len(client.frames)
    async with Raw(client.url) as raw:
        await raw.hello(person.token, seq=client.seq, streams={answer["id"]: FAR, str(uuid4()): 7})
        assert await raw.alive()
        assert raw.received == 2
    assert seen


async def half_an_answer(client: Client, provider: Any, text: str) -> tuple[script.Gate, str]:
    """An answer that has said `text` and waits."""
    gate = script.Gate()
    marker = provider.script(
        f"half-{uuid4().hex[:8]}", script.text(text), script.wait(gate), script.text(" end"), script.ok()
    )
    ack = await client.send(marker)
    await client.shows(ack["answer_id"], text)
    return gate, ack["answer_id"]


@pytest.mark.parametrize(
    ("text", "offset"),
    [("half", FAR), ("zwölf", 3), ("a😀b", 2), ("a😀b", 4)],
    ids=["beyond", "in_two_bytes", "in_four_bytes", "at_the_last_of_four"],
)
@pytest.mark.parametrize("place", ["same", "other"])
async def test_an_offset_that_cant_be_served_is_reset(
    server: Server, both: dict[str, Server], person: Person, provider: Any, text: str, offset: int, place: str
) -> None:
    session_id = person.new_session(server)
    sits = server if place == "same" else next(one for one in both.values() if one is not server)
    async with person.client(server, session_id) as client:
        gate, answer_id = await half_an_answer(client, provider, text)
        second = person.client(sits, session_id)
        await second.open_raw()
        hello = {"type": "hello", "token": person.token, "seq": client.seq, "streams": {answer_id: offset}}
        await second.send_json(hello)
        await second.wait(lambda: second.resets, 8)
        await second.shows(answer_id, text)
        gate.release()
        done = await second.answer(answer_id)
        assert done["content"] == f"{text} end"
        await second.disconnect()


async def test_the_right_offset_goes_on_without_a_reset(server: Server, person: Person, provider: Any) -> None:
    session_id = person.new_session(server)
    async with person.client(server, session_id) as client:
        gate, answer_id = await half_an_answer(client, provider, "zwölf 😀")
        async with Raw(client.url) as raw:
            end = len("zwö".encode())
            await raw.hello(person.token, seq=client.seq, streams={answer_id: end})
            delta = await raw.next("delta", "reset", "message")
            whole = len("zwölf 😀".encode())
            assert delta == {"type": "delta", "message_id": answer_id, "offset": end, "end": whole, "text": "lf 😀"}
        gate.release()
        await client.answer(answer_id)


# Repeats -------------------------------------------------------------------------------------------------------------


async def test_a_repeated_id_with_the_same_text_gets_the_same_ack(server: Server, person: Person) -> None:
    client = person.client(server, person.new_session(server))
    async with client:
        first = await client.send("once", id="r1")
        assert first == await client.send("once", id="r1")
        await client.answer(first["answer_id"])
        assert first == await client.send("once", id="r1")
    async with client:
        assert first == await client.send("once", id="r1")
        assert len(client.messages) == 2


async def test_a_repeated_id_with_another_text_is_a_conflict(server: Server, person: Person) -> None:
    async with person.client(server, person.new_session(server)) as client:
        first = await client.send("once", id="r1")
        for text in ("twice", "once ", "ONCE"):
            error = await client.send(text, id="r1")
            assert (error["type"], error["code"], error["id"]) == ("error", "id_conflict", "r1")
        await client.answer(first["answer_id"])
        assert len(client.messages) == 2


async def test_a_text_that_is_stored_changed_is_still_repeatable(server: Server, person: Person) -> None:
    async with person.client(server, person.new_session(server)) as client:
        first = await client.send("a\0b\ud800", id="r1")
        assert first["type"] == "ack"
        assert first == await client.send("a\0b\ud800", id="r1")


async def test_the_same_id_in_two_sessions_is_two_messages(server: Server, person: Person) -> None:
    acks = []
    for _ in range(2):
        async with person.client(server, person.new_session(server)) as client:
            acks.append(await client.send("once", id="r1"))
    assert acks[0]["message_id"] != acks[1]["message_id"]


# Stop ----------------------------------------------------------------------------------------------------------------


async def test_a_stop_is_acked_by_its_id_and_keeps_the_text(server: Server, person: Person, provider: Any) -> None:
    async with person.client(server, person.new_session(server)) as client:
        _, answer_id = await half_an_answer(client, provider, "so far")
        await client.send_json({"type": "turn.stop", "message_id": answer_id, "id": "stop-1"})
        await client.wait_frame(lambda frame: frame["type"] == "ack" and frame["id"] == "stop-1")
        row = await client.answer(answer_id)
        assert (row["status"], row["content"]) == ("stopped", "so far")
        assert (await client.stop(answer_id))["type"] == "ack"


@pytest.mark.parametrize("which", ["unknown", "question", "foreign"])
async def test_a_stop_of_what_is_no_answer_here_is_not_found(
    server: Server, person: Person, other: Person, which: str
) -> None:
    async with (
        person.client(server, person.new_session(server)) as client,
        other.client(server, other.new_session(server)) as foreign,
    ):
        mine, theirs = await client.send("hello"), await foreign.send("hello")
        target = {"unknown": str(uuid4()), "question": mine["message_id"], "foreign": theirs["answer_id"]}[which]
        error = await client.stop(target)
        assert (error["code"], error["id"]) == ("not_found", target)
        assert (await foreign.answer(theirs["answer_id"]))["status"] == "complete"


# Bounds --------------------------------------------------------------------------------------------------------------


async def test_more_unanswered_messages_than_allowed_are_busy_not_lost(
    server: Server, person: Person, provider: Any
) -> None:
    async with person.client(server, person.new_session(server)) as client:
        gate, answer_id = await half_an_answer(client, provider, "first")
        answers = [await client.send(f"more {number}") for number in range(8)]
        assert [one["type"] for one in answers] == ["ack"] * 7 + ["error"]
        assert answers[-1]["code"] == "busy"
        assert answers[-1]["retry_after"] > 0
        gate.release()
        for ack in answers[:7]:
            assert (await client.answer(ack["answer_id"]))["status"] == "complete"
        assert (await client.answer(answer_id))["content"] == "first end"
        assert (await client.send("more 7"))["type"] == "ack"


async def test_a_flood_of_messages_is_answered_one_by_one(server: Server, person: Person) -> None:
    async with person.client(server, person.new_session(server)) as client:
        await asyncio.gather(
            *(client.send_json({"type": "message.send", "id": f"f{n}", "text": "x"}) for n in range(100))
        )
        answers = await client.wait(
            lambda: (
                (found := {f["id"]: f for f in client.frames if f["type"] in ("ack", "error")})
                and len(found) == 100
                and found
            )
        )
        assert {one.get("code") for one in answers.values()} <= {None, "busy"}
        acked = [one for one in answers.values() if one["type"] == "ack"]
        assert acked
        for ack in acked:
            await client.answer(ack["answer_id"])
        assert len(client.messages) == 2 * len(acked)


async def test_a_member_removed_while_connected_can_say_nothing_more(server: Server, person: Person) -> None:
    async with person.client(server, person.new_session(server)) as client:
        done = await client.ask("hello")
        await database.run(person.user.memberships.all().delete)
        assert (await client.send("again"))["code"] == "not_found"
        assert (await client.stop(done["id"]))["code"] == "not_found"


async def test_daphne_sends_no_more_than_is_seen(both: dict[str, Server], person: Person) -> None:
    """Its send never waits for a slow reader; the client's `seen` bounds what is under way."""
    server = both["daphne"]
    async with Raw(server.socket_url(person.new_session(server))) as raw:
        await raw.hello(person.token)
        for _ in range(800):
            await raw.send({"type": "ping", "x" * 400: 1})  # answered by some 400 bytes, so 320 KB in all
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                while raw.received < 801:
                    await raw.next("error")
        assert 300 < raw.received < 801
        await raw.send({"type": "seen", "frames": raw.received})
        while raw.received < 801:
            await raw.next("error")
        assert await raw.alive()
