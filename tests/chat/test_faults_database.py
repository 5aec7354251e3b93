"""PostgreSQL goes away and comes back: nothing is acked that isn't stored, and what is paid for is kept."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from django_chain.embedded.postgres import Postgres
from tests.conftest import side_by_side
from tests.support.client import Client
from tests.support.scripted_provider import Gate, ScriptedProvider, ok, text
from tests.support.server import ROOT, Server, rest
from tests.support.stage import SHORT_LEASES, no_traceback, settings, talking


@dataclass
class Stage:
    postgres: Postgres
    servers: tuple[Server, ...]
    token: str

    def new_session(self) -> str:
        return str(rest(self.servers[0], self.token, "POST", "/sessions", json={})["id"])

    def client(self, session_id: str, place: int = 0) -> Client:
        return Client(self.servers[place].socket_url(session_id), token=self.token)

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.url) as connection:
            return connection.execute(sql, values).fetchall()


@pytest.fixture(scope="module")
def stage(server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A PostgreSQL of our own with two server processes; their leases are shorter than the outages here."""
    postgres = Postgres(tmp_path_factory.mktemp("postgres"), fast=True)
    env = server_env | settings(CHAT=SHORT_LEASES) | {"DATABASE_URL": postgres.start()}
    try:
        prepare = [sys.executable, "-m", "tests.support.second_database"]
        done = subprocess.run(
            prepare, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        with side_by_side(Server(env), Server(env)) as servers:
            yield Stage(postgres, servers, done.stdout.strip())
            no_traceback(*servers)
    finally:
        postgres.stop(immediate=True)


@pytest.mark.parametrize("immediate", [False, True], ids=["fast", "immediate"])
async def test_postgres_restarted_in_mid_stream(stage: Stage, provider: ScriptedProvider, immediate: bool) -> None:
    name, gate = f"database-{immediate}", Gate()
    provider.script(name, talking(gate), text("the end"), ok())
    session_id = stage.new_session()
    async with stage.client(session_id) as client, stage.client(session_id, 1) as watcher:
        ack = await client.send(f"[[{name}]]")
        answer_id = ack["answer_id"]
        await watcher.shows(answer_id, "5 é")
        await asyncio.to_thread(stage.postgres.stop, immediate=immediate)
        try:
            gone_at = time.monotonic()
            refused = await asyncio.gather(*(_refused(one, name) for one in (client, watcher)))
            # Text goes on for as long as the leases surely hold.
            shown = len(client.texts[answer_id])
            # Longer than a lease: nobody may take the run for abandoned when the database is back.
            await asyncio.sleep(max(0, 3 - (time.monotonic() - gone_at)))
        finally:
            await asyncio.to_thread(stage.postgres.start)
        back_at = time.monotonic()
        await client.wait(lambda: len(client.texts[answer_id]) > shown + 200, 10)
        gate.release()
        row = await client.answer(answer_id, 10)
        assert row["status"] == "complete"
        assert row["content"].endswith("the end")
        assert await watcher.answer(answer_id, 10) == row
        assert len(provider.exchanges(name)) == 1

        # A refused message is sent again with its id.
        again = await _sent_at_last(client, f"say [[{name}-later]]", refused[0]["id"])
        assert (await client.answer(again["answer_id"], 10))["status"] == "complete"
        assert time.monotonic() - back_at < 10
        await watcher.wait(lambda: watcher.seq == client.seq, 5)
        assert client.messages == watcher.messages
        for one in (client, watcher):
            assert one.counts["welcome"] == 1
            _acks_are_stored(stage, one)
    _ended_once(stage, session_id)


async def _refused(client: Client, name: str) -> dict[str, Any]:
    """A message sent without a database: a typed error, soon."""
    began = time.monotonic()
    answer = await client.send(f"say [[{name}-later]]")
    assert (answer["type"], answer["code"]) == ("error", "database_unavailable"), answer
    assert answer["retry_after"] > 0
    assert time.monotonic() - began < 5
    return answer


async def _sent_at_last(client: Client, said: str, key: str) -> dict[str, Any]:
    """Send as a client does: the same id again after `retry_after`."""
    while True:
        answer = await client.send(said, id=key)
        if answer["type"] == "ack":
            return answer
        assert answer["code"] == "database_unavailable"
        await asyncio.sleep(min(answer["retry_after"], 0.5))


def _acks_are_stored(stage: Stage, client: Client) -> None:
    for frame in client.frames:
        if frame["type"] == "ack":
            found = stage.rows("SELECT client_id FROM chat_chathistory WHERE id = %s", frame["message_id"])
            assert found == [(frame["id"],)]


def _ended_once(stage: Stage, session_id: str) -> None:
    runs = stage.rows("SELECT id, status FROM chat_run WHERE session_id = %s", session_id)
    logs = stage.rows(
        "SELECT run_id, status, input_tokens, output_tokens FROM llm_interactionlog WHERE session_id = %s", session_id
    )
    assert all(status != "pending" for _, status in runs)
    assert sorted(run for run, _ in runs) == sorted(run for run, *_ in logs)
    assert all(status != "started" and None not in counts for _, status, *counts in logs)


async def test_a_long_outage_is_over_within_ten_seconds_of_its_end(stage: Stage) -> None:
    """A pool that tries again ever more seldom would not notice for as long as the outage took."""
    session_id = stage.new_session()
    async with stage.client(session_id) as client:
        await asyncio.to_thread(stage.postgres.stop)
        try:
            gone_at = time.monotonic()
            while time.monotonic() - gone_at < 5:
                answer = await client.send("are you there?")
                assert answer["code"] == "database_unavailable"
        finally:
            await asyncio.to_thread(stage.postgres.start)
        back_at = time.monotonic()
        ack = await _sent_at_last(client, "now?", "after-the-outage")
        assert (await client.answer(ack["answer_id"]))["status"] == "complete"
        assert time.monotonic() - back_at < 10
        _acks_are_stored(stage, client)
        print(f"back after {time.monotonic() - back_at:.1f} s")


async def test_a_client_that_comes_without_a_database_is_told_to_come_again(stage: Stage) -> None:
    session_id = stage.new_session()
    await asyncio.to_thread(stage.postgres.stop)
    try:
        client = stage.client(session_id)
        answer = await client.connect()
        assert (answer["type"], answer["code"]) == ("error", "database_unavailable")
        assert await client.closed() == 4503
    finally:
        await asyncio.to_thread(stage.postgres.start)
    deadline = time.monotonic() + 10
    while (await client.connect())["type"] != "welcome":
        await client.closed()
        assert time.monotonic() < deadline
    await client.disconnect()
