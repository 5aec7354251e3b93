"""A server process dies; the other one goes on. With the default leases: within ten seconds."""

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Person, side_by_side
from tests.support import oracle
from tests.support.client import Client
from tests.support.scripted_provider import Gate, ScriptedProvider, ok, text, wait
from tests.support.server import Server
from tests.support.stage import move, settings, talking

WORKFLOW = [{"type": "memory"}, {"type": "retrieve", "k": 2}, {"type": "fault"}, {"type": "prompt"}, {"type": "llm"}]
SESSIONS = 20


@pytest.fixture(scope="module")
def pair(live_database: None, server_env: dict[str, str]) -> Iterator[tuple[Server, ...]]:
    env = server_env | settings(CHAT={"DEFAULT_WORKFLOW": WORKFLOW})
    with side_by_side(Server(env), Server(env)) as servers:
        yield servers


@pytest.fixture
def both(pair: tuple[Server, Server]) -> tuple[Server, Server]:
    """The two processes, both alive."""
    for server in pair:
        if server.process is not None and server.process.poll() is not None:
            server.start()
    return pair


async def test_killing_the_owner_keeps_what_was_shown_of_twenty_answers(
    both: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    first, second = both
    made = [await _begin(first, person, provider, number, chance.randrange(0, 60)) for number in range(SESSIONS)]
    watcher = person.client(second, made[0][0])
    await watcher.connect()

    await asyncio.sleep(chance.random() * 0.1)  # where the free-running ones stand is left to chance
    killed_at = time.monotonic()
    first.kill()
    await asyncio.gather(*(client.closed() for _, client, _, _ in made))
    shown = [dict(client.texts) for _, client, _, _ in made]
    await asyncio.gather(*(move(client, second, session_id) for session_id, client, _, _ in made))
    rows = await asyncio.gather(*(client.answer(answer_id, 15) for _, client, answer_id, _ in made))
    took = time.monotonic() - killed_at
    assert took < 10, f"settled after {took:.1f} s"

    settled = zip(made, rows, shown, strict=True)
    await asyncio.gather(*(_check(*one, row, before, provider) for one, row, before in settled))
    client = made[0][1]
    await watcher.wait(lambda: watcher.seq == client.seq)
    await oracle.check(made[0][0], client, watcher)
    await asyncio.gather(*(client.disconnect() for _, client, _, _ in made))
    await watcher.disconnect()


async def _check(
    session_id: str,
    client: Client,
    answer_id: str,
    name: str,
    row: dict[str, Any],
    before: dict[str, bytes],
    provider: ScriptedProvider,
) -> None:
    text_shown = before[answer_id].decode()
    assert row["content"].startswith(text_shown)
    if text_shown:
        assert row["status"] == "interrupted"
        assert len(provider.exchanges(name)) == 1
    else:
        assert row["status"] in ("complete", "interrupted")
    assert (await client.ask("and now?"))["status"] == "complete"
    await oracle.check(session_id, client)


async def _begin(
    server: Server, person: Person, provider: ScriptedProvider, number: int, offset: int
) -> tuple[str, Client, str, str]:
    """An answer that stands at `offset` tokens, or runs on."""
    name, gate, pieces = f"crash-{number}", Gate(), [f"{n}é🙂 " for n in range(offset)]
    runs_on = number % 2 == 0
    script = [talking(gate, every=0.05)] if runs_on else [text(*pieces), wait(gate)]
    provider.script_tries(name, [*script, ok()], [text("anew"), ok()])
    session_id = await asyncio.to_thread(person.new_session, server)
    client = person.client(server, session_id)
    await client.connect()
    ack = await client.send(f"go on [[{name}]]")
    await asyncio.to_thread(gate.reached.wait, 10)
    if runs_on:
        await client.shows(ack["answer_id"], "3 é")
    elif pieces:
        await client.shows(ack["answer_id"], pieces[-1])
    return session_id, client, ack["answer_id"], name


async def test_dying_between_commit_and_ack_loses_nothing_and_doubles_nothing(
    both: tuple[Server, Server], person: Person, provider: ScriptedProvider, hit_file: Path
) -> None:
    first, second = both
    name = "unacked"
    provider.script(name, text("once"), ok())
    session_id = person.new_session(first)
    said = f"[[die:after-commit]] [[{name}]]"
    async with person.client(first, session_id) as client:
        await client.send_json({"type": "message.send", "id": "the-same", "text": said})
        await client.closed()
        assert hit_file.read_text() == "after-commit"
        died_at = time.monotonic()
        assert not client.counts["ack"]
        await move(client, second, session_id)
        ack = await client.send(said, id="the-same")
        assert ack["type"] == "ack"
        assert await client.send(said, id="the-same") == ack
        row = await client.answer(ack["answer_id"], 15)
        assert time.monotonic() - died_at < 10
        assert (row["status"], row["content"]) == ("complete", "once")
        assert await client.send(said, id="the-same") == ack
        assert len(provider.exchanges(name)) == 1
        rows = await oracle.check(session_id, client)
        assert [row["role"] for row in rows] == ["USER", "ASSISTANT"]
        assert (await client.ask("next"))["status"] == "complete"


async def test_dying_between_ack_and_model_call_is_answered_by_the_other_process(
    both: tuple[Server, Server], person: Person, provider: ScriptedProvider, hit_file: Path
) -> None:
    first, second = both
    name = "acked"
    provider.script(name, text("once"), ok())
    session_id = person.new_session(first)
    go = Path(f"{hit_file}.go")
    async with person.client(first, session_id) as client, person.client(second, session_id) as watcher:
        ack = await client.send(f"[[die:before-model]] [[{name}]]")
        assert ack["type"] == "ack"
        await client.wait_frame(lambda frame: frame["type"] == "step" and frame["name"] == "fault")
        go.touch()
        await client.closed()
        died_at = time.monotonic()
        assert hit_file.read_text() == "before-model"
        go.unlink()
        await move(client, second, session_id)
        row = await client.answer(ack["answer_id"], 15)
        assert time.monotonic() - died_at < 10
        assert (row["status"], row["content"]) == ("complete", "once")
        assert len(provider.exchanges(name)) == 1
        await watcher.answer(ack["answer_id"])
        await oracle.check(session_id, client, watcher)
