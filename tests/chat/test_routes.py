"""A day on a route: its first provider dies and the second answers, unnoticed; the log accounts for every request."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import pytest

from kernel import database
from llm.models import InteractionLog
from tests.conftest import Person
from tests.support import oracle
from tests.support.client import Client
from tests.support.scripted_provider import Gate, ScriptedProvider, hang, ok, status, text, until, wait
from tests.support.server import Server
from tests.support.stage import eventually, no_traceback, settings

BREAKER_FAILURES = 3


class House:
    """A server on a route over two providers, and what they were asked."""

    def __init__(
        self, server: Server, primary: ScriptedProvider, secondary: ScriptedProvider, doors: ExitStack
    ) -> None:
        self.server, self.primary, self.secondary = server, primary, secondary
        self._doors = doors

    def kill_primary(self) -> None:
        """Its port is closed, and so is every connection."""
        self._doors.close()


def model(provider: ScriptedProvider, **keys: Any) -> dict[str, Any]:
    place = {"base_url": provider.base_url, "api_key": "sk-test-not-a-key"}
    return {"PROVIDER": "openai", "MODEL": "scripted", "OPTIONS": place, "MAX_RETRIES": 0, **keys}


@pytest.fixture
def house(spawn: Callable[..., Server]) -> Iterator[House]:
    with ExitStack() as stack:
        doors = stack.enter_context(ExitStack())
        primary = doors.enter_context(ScriptedProvider())
        secondary = stack.enter_context(ScriptedProvider())
        llm = {
            "MODELS": {"primary": model(primary, MAX_RETRIES=1), "secondary": model(secondary)},
            "ROUTES": {"main": {"MODELS": ["primary", "secondary"]}},
            "DEFAULT_MODEL": "main",
            "BREAKER_FAILURES": BREAKER_FAILURES,
            "BREAKER_SECONDS": 600.0,
        }
        server = spawn(env=settings(LLM=llm))
        yield House(server, primary, secondary, doors)
        no_traceback(server)
        assert "sk-test" not in server.log_text()


async def rows_of(*session_ids: str) -> list[dict[str, Any]]:
    def read() -> list[dict[str, Any]]:
        rows = InteractionLog.objects.filter(session_id__in=[UUID(one) for one in session_ids])
        return list(rows.order_by("run_id", "call").values())

    return await database.run(read)


async def test_the_death_of_the_first_provider_is_noticed_by_the_log_alone(house: House, person: Person) -> None:
    session_id = person.new_session(house.server)
    house.secondary.script("torn", text("from the second"), ok())
    house.primary.script("torn", hang())
    async with person.client(house.server, session_id) as client:
        for number in range(3):
            assert (await client.ask(f"morning {number}"))["status"] == "complete"
        torn = await client.send("[[torn]]")
        await asyncio.to_thread(house.primary.wait_for, "torn")

        await asyncio.to_thread(house.kill_primary)

        row = await client.answer(torn["answer_id"])
        assert (row["status"], row["content"], row["error_code"]) == ("complete", "from the second", "")
        for number in range(5):
            began = time.monotonic()
            row = await client.ask(f"afternoon {number}")
            assert (row["status"], row["content"]) == ("complete", f"echo: afternoon {number}")
            assert time.monotonic() - began < 3
        assert not [frame for frame in client.frames if frame["type"] == "error"]
        await oracle.check(session_id, client)

    log = await rows_of(session_id)
    of = {alias: [row for row in log if row["alias"] == alias] for alias in ("primary", "secondary")}
    answered = {alias: [row for row in rows if row["status"] == "ok"] for alias, rows in of.items()}
    failed = [row for row in of["primary"] if row["status"] == "failed"]
    assert len(log) == len(of["primary"]) + len(of["secondary"])
    assert len(answered["primary"]) + 1 == len(house.primary.exchanges())  # the one that was torn
    assert len(answered["secondary"]) == len(of["secondary"]) == len(house.secondary.exchanges()) == 6
    assert {row["error_category"] for row in failed} == {"provider_unavailable"}
    assert len(failed) == BREAKER_FAILURES
    assert sum(row["input_tokens"] for row in answered["secondary"]) == 11 * 6
    said = sum(exchange.tokens_sent for exchange in house.secondary.exchanges())
    assert sum(row["output_tokens"] for row in answered["secondary"]) == said


async def test_a_stop_while_a_retry_is_waited_for_ends_the_answer_at_once(house: House, person: Person) -> None:
    house.primary.script("later", status(429, headers={"Retry-After": "20"}))
    session_id = person.new_session(house.server)
    async with person.client(house.server, session_id) as client:
        ack = await client.send("[[later]]")
        await asyncio.to_thread(house.primary.wait_for, "later")
        began = time.monotonic()
        await client.stop(ack["answer_id"])

        assert (await client.answer(ack["answer_id"]))["status"] == "stopped"
        assert time.monotonic() - began < 1
        assert (await client.ask("and now?"))["status"] == "complete"
        await oracle.check(session_id, client)
    assert Counter(row["status"] for row in await rows_of(session_id))["started"] == 0
    assert len(house.primary.exchanges("later")) == 1
    assert not house.secondary.exchanges()


@pytest.fixture
def narrow(spawn: Callable[..., Server], provider: ScriptedProvider) -> Iterator[Server]:
    """A server whose model takes one call at a time."""
    models = {"default": {"MAX_CONCURRENT": 1, "MAX_RETRIES": 0}}
    server = spawn(env=settings(LLM={"MODELS": models, "DEFAULT_MODEL": "default"}))
    yield server
    no_traceback(server)
    provider.forget()


async def test_who_waits_for_a_place_sees_it_and_can_stop(
    narrow: Server, make: Callable[[], Person], provider: ScriptedProvider
) -> None:
    gate = Gate()
    provider.script("first", text("one "), wait(gate), ok())
    first, second, third = [await asyncio.to_thread(make) for _ in range(3)]
    sessions = [await asyncio.to_thread(one.new_session, narrow) for one in (first, second, third)]
    clients = [one.client(narrow, at) for one, at in zip((first, second, third), sessions, strict=True)]
    for client in clients:
        await client.connect()
    held = await clients[0].send("[[first]]")
    await clients[0].shows(held["answer_id"], "one ")

    waiting = await clients[1].send("[[second]]")
    assert await place_of(clients[1], waiting) == 1
    behind = await clients[2].send("third in line")
    assert await place_of(clients[2], behind) == 2
    began = time.monotonic()
    await clients[1].stop(waiting["answer_id"])

    assert (await clients[1].answer(waiting["answer_id"]))["status"] == "stopped"
    assert time.monotonic() - began < 1
    await eventually(lambda: places_of(clients[2], behind)[-1] == 1)
    gate.release()
    assert (await clients[0].answer(held["answer_id"]))["status"] == "complete"
    assert (await clients[2].answer(behind["answer_id"]))["content"] == "echo: third in line"
    assert provider.exchanges("second") == []
    for at, client in zip(sessions, clients, strict=True):
        await oracle.check(at, client)
        await client.disconnect()


async def test_stopping_the_second_model_closes_its_connection(house: House, person: Person) -> None:
    house.primary.script("stop", status(500))
    house.secondary.script("stop", text("one "), hang())
    session_id = person.new_session(house.server)
    async with person.client(house.server, session_id) as client:
        ack = await client.send("[[stop]]")
        await client.shows(ack["answer_id"], "one ")
        began = time.monotonic()
        await client.stop(ack["answer_id"])
        exchange = house.secondary.exchanges("stop")[0]
        assert await until(exchange.disconnected, 2)
        assert (exchange.disconnected_at or 0) - began < 1
        assert (await client.answer(ack["answer_id"]))["content"] == "one "
        await oracle.check(session_id, client)


async def place_of(client: Client, ack: dict[str, Any]) -> int:
    """The first place in the queue that a client is told for an answer."""
    await client.wait(lambda: places_of(client, ack))
    return places_of(client, ack)[0]


def places_of(client: Client, ack: dict[str, Any]) -> list[int]:
    return [
        frame["detail"]["place"]
        for frame in client.frames
        if frame["type"] == "step" and frame["message_id"] == ack["answer_id"] and frame["state"] == "queued"
    ]
