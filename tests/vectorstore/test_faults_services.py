"""Broker and database go away in the middle of a document's way, and come back empty or as they were."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from django_chain.embedded.postgres import Postgres
from tests.support.ingest_stage import LEASE, IngestStage, ingest_stage, manual
from tests.support.scripted_embeddings import vectors
from tests.support.scripted_provider import Gate, until, wait
from tests.support.server import ROOT
from tests.support.stage import eventually


@dataclass
class Place:
    stage: IngestStage
    postgres: Postgres
    token: str


@pytest.fixture(scope="module")
def place(server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A PostgreSQL and a broker of our own; the worker has beat inside, as in the demo."""
    postgres = Postgres(tmp_path_factory.mktemp("postgres"), fast=True)
    env = server_env | {"DATABASE_URL": postgres.start()}
    try:
        prepare = [sys.executable, "-m", "tests.support.second_database"]
        done = subprocess.run(
            prepare, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        with ingest_stage(env, tmp_path_factory.mktemp("valkey"), beat=True) as stage:
            yield Place(stage, postgres, done.stdout.strip())
    finally:
        postgres.stop(immediate=True)


async def test_a_broker_that_comes_back_empty_is_told_again(place: Place) -> None:
    stage, gate = place.stage, Gate()
    stage.provider.script("first", wait(gate), vectors())
    first = stage.upload(place.token, manual(2, "about [[first]]"), name="first.md")
    assert await until(gate.reached, 15)
    # The worker has its hands full: these are words in the broker.
    others = [stage.upload(place.token, manual(2, f"about other{n}"), name=f"{n}.md") for n in range(3)]
    await eventually(lambda: stage.waiting() >= 2)
    stage.valkey.kill()
    await asyncio.to_thread(stage.valkey.start)
    assert stage.waiting() == 0
    gate.release()
    # A minute later, which is when a word counts as lost.
    stage.write("UPDATE vectorstore_ingestjob SET sent_at = sent_at - interval '61 seconds'")
    began = time.monotonic()
    await eventually(lambda: all(stage.state(each) == "ready" for each in (first, *others)), deadline=30)
    print(f"all are ready {time.monotonic() - began:.1f} s after that")
    assert [len(stage.chunks(each)) for each in (first, *others)] == [2] * 4
    assert len(stage.provider.exchanges("first")) == 1


async def test_an_upload_without_a_broker_is_taken_in_and_done_later(place: Place) -> None:
    stage = place.stage
    stage.valkey.kill()
    try:
        began = time.monotonic()
        made = [stage.uploaded(place.token, manual(2, f"about late{n}"), name=f"late{n}.md") for n in range(3)]
        assert [each["outcome"] for each in made] == ["queued"] * 3
        # One waits for the broker, a second; the others know.
        assert time.monotonic() - began < 5
        ids = [each["document"]["id"] for each in made]
        assert [stage.document(place.token, each)["state"] for each in ids] == ["queued"] * 3
    finally:
        await asyncio.to_thread(stage.valkey.start)
    back = time.monotonic()
    await eventually(lambda: all(stage.state(each) == "ready" for each in ids), deadline=30)
    print(f"ready {time.monotonic() - back:.1f} s after the broker is back")
    assert [len(stage.chunks(each)) for each in ids] == [2] * 3


@pytest.mark.parametrize("immediate", [False, True], ids=["fast", "immediate"])
async def test_a_database_that_restarts_leaves_the_old_text_or_the_new_one(place: Place, immediate: bool) -> None:
    stage, gate, name = place.stage, Gate(), f"restart-{immediate}"
    source = f"{name}.md"
    document_id = stage.upload(place.token, manual(4, "an older text"), name=source)
    await stage.ends(document_id)
    old, new = (4, 0), (0, 6)
    stage.provider.script_tries(name, [wait(gate), vectors()], [vectors()])
    stage.upload(place.token, manual(6, f"a newer text [[{name}]]"), name=source)
    assert await until(gate.reached, 15)
    await asyncio.to_thread(place.postgres.stop, immediate=immediate)
    gate.release()
    try:
        await eventually(stage.provider.exchanges(name)[0].finished.is_set)
    finally:
        await asyncio.to_thread(place.postgres.start)
    back = time.monotonic()
    seen = set()

    def found() -> bool:
        if not stage.waiting():
            stage.sweep()
        texts = stage.found(place.token, "text", documents=[document_id])
        seen.add((sum("older" in text for text in texts), sum("newer" in text for text in texts)))
        return stage.state(document_id) == "ready"

    await eventually(found, deadline=20)
    print(f"ready {time.monotonic() - back:.1f} s after the database is back; seen: {seen}")
    found()
    assert seen <= {old, new}
    assert new in seen
    assert len(stage.chunks(document_id)) == 6


async def test_a_database_that_is_away_for_a_moment_costs_no_work(place: Place) -> None:
    stage, gate = place.stage, Gate()
    stage.provider.script("moment", wait(gate), vectors())
    document_id = stage.upload(place.token, manual(3, "about [[moment]]"), name="moment.md")
    assert await until(gate.reached, 15)
    await asyncio.to_thread(place.postgres.stop)
    try:
        # The worker would renew its claim twice meanwhile.
        await asyncio.sleep(LEASE)
    finally:
        await asyncio.to_thread(place.postgres.start)
    gate.release()
    await stage.ends(document_id)
    assert len(stage.provider.exchanges("moment")) == 1
    assert len(stage.chunks(document_id)) == 3
