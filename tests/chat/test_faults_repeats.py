"""Clients that repeat themselves, come and go, write at the same time, and stop: on two processes."""

import asyncio
import random
import time

from tests.conftest import Person
from tests.support import oracle
from tests.support.client import Client
from tests.support.scripted_provider import Gate, ScriptedProvider, finish, ok, text, until, wait
from tests.support.server import Server
from tests.support.stage import eventually, move, talking


async def test_fifty_repeats_of_a_message_on_two_processes_are_one_message(
    servers: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    provider.script("repeated", text("once"), ok())
    session_id = person.new_session(servers[0])
    clients = [person.client(servers[number % 2], session_id) for number in range(4)]
    await asyncio.gather(*(client.connect() for client in clients))
    frame = {"type": "message.send", "id": "again", "text": "[[repeated]]"}
    await asyncio.gather(*(clients[number % 4].send_json(frame) for number in range(52)))
    for client in clients:
        await client.wait(lambda client=client: client.counts["ack"] == 13)
        assert not client.counts["error"]
    acks = [{**frame} for client in clients for frame in client.frames if frame["type"] == "ack"]
    assert len(acks) == 52
    assert all(ack == acks[0] for ack in acks)
    for client in clients:
        assert (await client.answer(acks[0]["answer_id"]))["content"] == "once"
    refused = await clients[1].send("another text", id="again")
    assert (refused["type"], refused["code"]) == ("error", "id_conflict")
    assert await clients[1].send("[[repeated]]", id="again") == acks[0]
    assert len(provider.exchanges("repeated")) == 1
    assert len(await oracle.check(session_id, *clients)) == 2
    await asyncio.gather(*(client.disconnect() for client in clients))


async def test_two_tabs_writing_at_once_are_answered_one_after_the_other_in_one_order(
    servers: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    gate = Gate()
    provider.script("first-of-many", text("wait "), wait(gate), ok())
    session_id = person.new_session(servers[0])
    tabs = [person.client(server, session_id) for server in (*servers, *servers)]
    await asyncio.gather(*(tab.connect() for tab in tabs))
    await tabs[0].send("[[first-of-many]]")
    acks = await asyncio.gather(*(tabs[number % 4].send(f"say {number}") for number in range(6)))
    assert all(ack["type"] == "ack" for ack in acks)
    places = {ack["answer_id"]: place for place, ack in enumerate(sorted(acks, key=lambda ack: ack["seq"]), 1)}
    for tab in tabs:
        for ack in acks:
            step = await tab.wait_frame(
                lambda frame, ack=ack: (
                    frame["type"] == "step" and frame["message_id"] == ack["answer_id"] and frame["state"] == "queued"
                )
            )
            assert step["detail"]["place"] == places[ack["answer_id"]]
    gate.release()
    for tab in tabs:
        for ack in acks:
            assert (await tab.answer(ack["answer_id"]))["status"] == "complete"
    rows = await oracle.check(session_id, *tabs)
    orders = [[m["id"] for m in sorted(tab.messages.values(), key=lambda m: m["order"])] for tab in tabs]
    assert all(order == [str(row["id"]) for row in rows] for order in orders)
    # Each question came to the provider only when the answer before it was written.
    asked = [e for e in provider.exchanges("") if any("say " in str(m["content"]) for m in e.messages)][-6:]
    said = [row["content"] for row in rows if row["role"] == "USER"][1:]
    assert [exchange.messages[-1]["content"].rpartition("say ")[2] for exchange in asked] == [
        text.rpartition("say ")[2] for text in said
    ]
    for number, exchange in enumerate(asked):
        assert sum(message["role"] == "assistant" for message in exchange.messages) == number + 1
    await asyncio.gather(*(tab.disconnect() for tab in tabs))


async def test_reconnecting_every_300_ms_to_alternating_processes_loses_and_doubles_nothing(
    servers: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    gate = Gate()
    provider.script("flapping", talking(gate, every=0.004), text("the end"), ok())
    session_id = person.new_session(servers[0])
    flapping = [person.client(servers[0], session_id) for _ in range(4)]
    async with person.client(servers[0], session_id) as client:
        ack = await client.send("[[flapping]]")
        for one in flapping:
            await one.connect()
        for turn in range(10):
            # An event or the time: what matters is that the cut comes at no particular place.
            await asyncio.gather(*(_cut_after(one, chance.uniform(0.05, 0.3)) for one in flapping))
            await asyncio.gather(*(move(one, servers[(turn + n) % 2], session_id) for n, one in enumerate(flapping)))
        gate.release()
        row = await client.answer(ack["answer_id"])
        for one in flapping:
            assert await one.answer(ack["answer_id"]) == row
            assert not one.resets
            assert _streamed(one, ack["answer_id"]) == len(row["content"].encode())
        await oracle.check(session_id, client, *flapping)
    for one in flapping:
        await one.disconnect()


async def _cut_after(client: Client, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await client.cut()


def _streamed(client: Client, answer_id: str) -> int:
    """Bytes of text that came as deltas, or the final row's length if it came before their end."""
    deltas = [frame for frame in client.frames if frame["type"] == "delta" and frame["message_id"] == answer_id]
    sizes = sum(len(frame["text"].encode()) for frame in deltas)
    end = max((frame["end"] for frame in deltas), default=0)
    assert sizes == end, "some text came twice"
    return len(client.messages[answer_id]["content"].encode())


async def test_a_cursor_that_cannot_be_served_is_answered_with_reset_and_the_first_page(
    servers: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    gate = Gate()
    provider.script("cursors", text("grün 🙂 ist die Hoffnung"), wait(gate), ok())
    session_id = person.new_session(servers[0])
    async with person.client(servers[0], session_id) as client:
        ack = await client.send("[[cursors]]")
        answer_id = ack["answer_id"]
        await client.shows(answer_id, "Hoffnung")
        size = len(client.texts[answer_id])
        # Beyond the text, inside a character (ü, 🙂), and a seq of the future; on the owner and on the other process.
        wrong = [(client.seq, size + 1000), (client.seq, 3), (client.seq, 8), (client.seq + 999, 0)]
        await asyncio.gather(
            *(
                _resume_wrongly(person, server, session_id, answer_id, seq, offset)
                for server in servers
                for seq, offset in wrong
            )
        )
        gate.release()
        await client.answer(answer_id)
        await oracle.check(session_id, client)


async def _resume_wrongly(
    person: Person, server: Server, session_id: str, answer_id: str, seq: int, offset: int
) -> None:
    lost = person.client(server, session_id)
    await lost.open_raw()
    hello = {"type": "hello", "seq": seq, "streams": {answer_id: offset} if offset else {}, "token": lost.token}
    await lost.send_json(hello)
    await lost.wait(lambda: lost.resets == 1, 6)
    await lost.shows(answer_id, "grün 🙂 ist die Hoffnung")
    assert len(lost.messages) == 2
    await lost.disconnect()


async def test_stop_before_the_first_token_closes_the_providers_connection_within_a_second(
    servers: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    provider.script("stop-before", wait(Gate()), ok())
    session_id = person.new_session(servers[0])
    async with person.client(servers[0], session_id) as client, person.client(servers[1], session_id) as other:
        ack = await client.send("[[stop-before]]")
        exchange = await asyncio.to_thread(provider.wait_for, "stop-before")
        stopped_at = time.monotonic()
        assert (await client.stop(ack["answer_id"]))["type"] == "ack"
        assert await until(exchange.disconnected, 1)
        assert exchange.disconnected_at is not None
        assert exchange.disconnected_at - stopped_at < 1
        for one in (client, other):
            row = await one.answer(ack["answer_id"])
            assert (row["status"], row["content"]) == ("stopped", "")
        assert (await other.ask("next"))["status"] == "complete"
        await client.wait(lambda: client.seq == other.seq)
        await oracle.check(session_id, client, other)


async def test_stop_from_the_other_process_keeps_the_partial_text_and_may_be_repeated(
    servers: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    provider.script("stop-during", talking(Gate()), finish())
    session_id = person.new_session(servers[0])
    async with person.client(servers[0], session_id) as client, person.client(servers[1], session_id) as other:
        ack = await client.send("[[stop-during]]")
        await other.shows(ack["answer_id"], "9 é")
        exchange = provider.wait_for("stop-during")
        stopped_at = time.monotonic()
        await asyncio.gather(other.stop(ack["answer_id"]), client.stop(ack["answer_id"]))
        assert await until(exchange.disconnected, 1)
        assert exchange.disconnected_at is not None
        assert exchange.disconnected_at - stopped_at < 1
        row = await client.answer(ack["answer_id"])
        assert row["status"] == "stopped"
        assert "9 é" in row["content"]
        assert await other.answer(ack["answer_id"]) == row
        # After the end it changes nothing.
        assert (await other.stop(ack["answer_id"]))["type"] == "ack"
        assert (await client.ask("next"))["status"] == "complete"
        assert client.messages[ack["answer_id"]] == row
        await other.wait(lambda: client.seq == other.seq)
        await oracle.check(session_id, client, other)


async def test_stop_of_a_queued_answer_lets_the_others_go_on(
    servers: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    gate = Gate()
    provider.script("long", wait(gate), text("long"), ok())
    session_id = person.new_session(servers[0])
    async with person.client(servers[0], session_id) as client, person.client(servers[1], session_id) as other:
        first = await client.send("[[long]]")
        second = await other.send("queued [[never-asked]]")
        third = await client.send("third")
        assert (await client.stop(second["answer_id"]))["type"] == "ack"
        row = await client.answer(second["answer_id"])
        assert (row["status"], row["content"]) == ("stopped", "")
        gate.release()
        for ack in (first, third):
            assert (await other.answer(ack["answer_id"]))["status"] == "complete"
        assert not provider.exchanges("never-asked")
        await eventually(lambda: client.seq == other.seq)
        await oracle.check(session_id, client, other)
