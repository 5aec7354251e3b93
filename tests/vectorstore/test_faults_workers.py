"""Workers die, or are told to stop, at every moment of a document's way: it is ready all the same, once, paid once."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from kernel.conf import Embeddings
from llm.embeddings.embedder import Embedder
from tests.conftest import Person
from tests.support.ingest_stage import BATCH, LEASE, IngestStage, ingest_stage, manual, slow_file
from tests.support.scripted_embeddings import DIMENSION, embedded, vectors
from tests.support.scripted_provider import Action, Gate, cut, hang, raw, status, until, wait
from tests.support.server import rest
from tests.support.stage import eventually
from tests.support.worker import Worker
from vectorstore.manager import VectorStoreManager


@pytest.fixture(scope="module")
def started(
    live_database: None, server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[IngestStage]:
    with ingest_stage(server_env, tmp_path_factory.mktemp("valkey")) as stage:
        yield stage


@pytest.fixture
def stage(started: IngestStage) -> IngestStage:
    """With a worker that lives."""
    if not started.worker.running:
        started.worker.start()
    return started


async def test_killed_while_a_file_is_read(stage: IngestStage, person: Person) -> None:
    document_id = stage.upload(person.token, slow_file(), name="parts.html")
    reader = await stage.parser()
    reader.suspend()
    stage.worker.kill()
    died_at = time.monotonic()
    # Also one that can't move any more ends with its worker.
    assert psutil.wait_procs([reader], timeout=5)[1] == []
    stage.worker.start()
    await stage.ends(document_id, deadline=LEASE + 15)
    print(f"ready {time.monotonic() - died_at:.1f} s after the death")
    assert "The last part." in stage.chunks(document_id)[-1][2]


@pytest.mark.parametrize("who", ["worker", "child"])
async def test_killed_while_passages_are_embedded(stage: IngestStage, person: Person, who: str) -> None:
    name, gate = f"embed-{who}", Gate()
    stage.provider.script_tries(name, *[[vectors()]] * 3, [wait(gate), vectors()], [vectors()])
    document_id = stage.upload(person.token, manual(6 * BATCH, f"about [[{name}]]"))
    assert await until(gate.reached, 15)
    if who == "worker":
        stage.worker.kill()
        stage.worker.start()
    else:
        # As the kernel does it when memory is short.
        os.kill(stage.worker.children()[0].pid, signal.SIGKILL)
        assert await until(stage.provider.exchanges(name)[3].disconnected)
    await stage.ends(document_id)
    assert len(stage.chunks(document_id)) == 6 * BATCH
    # What was answered before the death was kept: nothing is paid for twice.
    done = embedded(stage.provider, name)
    assert len(done) == len(set(done)) == 6 * BATCH


async def test_killed_in_the_swap(stage: IngestStage, person: Person) -> None:
    stage.provider.script("swap", vectors())
    old = stage.upload(person.token, manual(3, "an older [[swap]] text"))
    await stage.ends(old)
    with stage.locked("collection", old) as holder:
        document_id = stage.upload(person.token, manual(4, "a newer [[swap]] text"))
        await eventually(lambda: stage.waits_for(holder))
        stage.worker.kill()
    assert document_id == old
    assert [len(stage.found(person.token, words)) for words in ("older", "newer")] == [3, 0]
    stage.worker.start()
    await stage.ends(document_id)
    assert [len(stage.found(person.token, words)) for words in ("older", "newer")] == [0, 4]
    assert len(stage.chunks(document_id)) == 4
    done = embedded(stage.provider, "swap")
    assert len(done) == len(set(done)) == 7


async def test_killed_after_the_swap_before_it_heard_of_it(stage: IngestStage, person: Person) -> None:
    stage.provider.script("swapped", vectors())
    document_id = stage.upload(person.token, manual(3, "an older [[swapped]] text"))
    await stage.ends(document_id)
    main = psutil.Process(stage.worker.pid)
    frozen = [*stage.worker.children(), main]
    # A commit looks at the rows that new ones refer to: here it waits, with everything written.
    with stage.locked("vectorset", document_id) as holder:
        stage.upload(person.token, manual(4, "a newer [[swapped]] text"))
        [(job_id,)] = stage.rows("SELECT id FROM vectorstore_ingestjob WHERE document_id = %s", document_id)
        await eventually(lambda: stage.waits_for(holder))
        for process in frozen:
            process.suspend()
    await eventually(lambda: stage.document(person.token, document_id)["state"] == "ready")
    written = stage.chunks(document_id)
    stage.worker.kill()
    stage.worker.start()
    done = stage.done("ingest_document")
    # Its broker never heard that the job is done, and will give it to another one.
    stage.tell("vectorstore.tasks.ingest_document", str(job_id))
    await eventually(lambda: stage.done("ingest_document") > done, deadline=10)
    assert stage.chunks(document_id) == written
    assert len(written) == 4
    assert len(embedded(stage.provider, "swapped")) == 7


async def test_told_to_stop_it_finishes(stage: IngestStage, person: Person) -> None:
    gate = Gate()
    stage.provider.script("stopped", wait(gate), vectors())
    document_id = stage.upload(person.token, manual(3, "about [[stopped]]"))
    assert await until(gate.reached, 15)
    stopping = asyncio.ensure_future(asyncio.to_thread(stage.worker.stop))
    await eventually(lambda: "Warm shutdown" in stage.worker.log_text())
    gate.release()
    assert await stopping == 0
    assert stage.document(person.token, document_id)["state"] == "ready"
    assert len(stage.chunks(document_id)) == 3


async def test_told_to_stop_it_gives_back_what_takes_longer(stage: IngestStage, person: Person) -> None:
    gate = Gate()
    stage.provider.script_tries("handed", [wait(gate), vectors()], [vectors()])
    document_id = stage.upload(person.token, manual(3, "about [[handed]]"))
    assert await until(gate.reached, 15)
    assert await asyncio.to_thread(stage.worker.stop, 15) == 0
    assert stage.document(person.token, document_id)["state"] == "queued"
    # The try doesn't count, and the next worker has heard of it.
    assert (stage.jobs(document_id), stage.waiting()) == ([(True, 0)], 1)
    stage.worker.start()
    await eventually(lambda: stage.state(document_id) == "ready")
    assert len(stage.chunks(document_id)) == 3


async def test_told_to_stop_at_once_it_gives_back_at_once(stage: IngestStage, person: Person) -> None:
    gate = Gate()
    stage.provider.script_tries("dropped", [wait(gate), vectors()], [vectors()])
    document_id = stage.upload(person.token, manual(3, "about [[dropped]]"))
    assert await until(gate.reached, 15)
    # Service managers may tell each process, and then those of the pool don't finish anything.
    for process in [*stage.worker.children(), psutil.Process(stage.worker.pid)]:
        process.terminate()
    assert stage.worker.process is not None
    assert await asyncio.to_thread(stage.worker.process.wait, 15) == 0
    assert (stage.jobs(document_id), stage.state(document_id)) == ([(True, 0)], "queued")
    assert stage.waiting()
    stage.worker.start()
    await eventually(lambda: stage.state(document_id) == "ready")
    assert len(stage.chunks(document_id)) == 3


async def test_two_workers_told_at_once_are_one(stage: IngestStage, person: Person) -> None:
    gate = Gate()
    stage.provider.script("both", wait(gate), vectors())
    with Worker(stage.env, concurrency=2) as other:
        document_id = stage.upload(person.token, manual(3, "about [[both]]"))
        assert await until(gate.reached, 15)
        [(job_id,)] = stage.rows("SELECT id FROM vectorstore_ingestjob WHERE document_id = %s", document_id)
        for _ in range(3):
            stage.tell("vectorstore.tasks.ingest_document", str(job_id))
        # Whoever has it, the words to the others are done at once.
        await eventually(lambda: len(re.findall(r"ingest_document\[\S+\] succeeded", other.log_text())) >= 1)
        gate.release()
        await stage.ends(document_id)
    assert len(stage.chunks(document_id)) == 3
    assert len(stage.provider.exchanges("both")) == 1


async def test_a_worker_that_wakes_up_after_its_lease_writes_nothing(stage: IngestStage, person: Person) -> None:
    gate = Gate()
    stage.provider.script_tries("frozen", [wait(gate), vectors()], [vectors()])
    document_id = stage.upload(person.token, manual(3, "about [[frozen]]"))
    assert await until(gate.reached, 15)
    asleep = [*stage.worker.children(), psutil.Process(stage.worker.pid)]
    for process in asleep:
        process.suspend()
    try:
        with Worker(stage.env):
            await stage.ends(document_id)
        written = stage.chunks(document_id)
        done = stage.done("ingest_document")
    finally:
        for process in asleep:
            process.resume()
    gate.release()
    await eventually(lambda: stage.done("ingest_document") > done)
    assert stage.chunks(document_id) == written
    assert len(written) == 3
    assert stage.state(document_id) == "ready"


async def test_deleted_while_it_is_embedded(stage: IngestStage, person: Person) -> None:
    gate = Gate()
    stage.provider.script("deleted", wait(gate), vectors())
    document_id = stage.upload(person.token, manual(3, "about [[deleted]]"))
    assert await until(gate.reached, 15)
    done = stage.done("ingest_document")
    stage.delete(person.token, document_id)
    gate.release()
    await eventually(lambda: stage.done("ingest_document") > done)
    assert stage.chunks(document_id) == []
    assert stage.found(person.token, "about") == []
    # The same file again is a new document.
    again = stage.upload(person.token, manual(3, "about [[deleted]]"))
    await stage.ends(again)
    assert again != document_id
    assert len(stage.chunks(again)) == 3


async def test_uploaded_anew_while_the_old_bytes_are_embedded(stage: IngestStage, person: Person) -> None:
    gate = Gate()
    stage.provider.script("older", wait(gate), vectors())
    document_id = stage.upload(person.token, manual(3, "an older [[older]] text"))
    assert await until(gate.reached, 15)
    assert stage.upload(person.token, manual(2, "a newer text")) == document_id
    gate.release()
    await stage.ends(document_id)
    assert [len(stage.found(person.token, words)) for words in ("older", "newer")] == [0, 2]
    assert len(stage.chunks(document_id)) == 2


async def test_uploaded_twice_at_the_same_moment(stage: IngestStage, person: Person) -> None:
    versions = [manual(number, f"version{number} of it") for number in (2, 3, 4)]
    with ThreadPoolExecutor(len(versions)) as threads:
        ids = set(threads.map(lambda text: stage.upload(person.token, text), versions))
    assert len(ids) == 1
    await stage.ends(document_id := ids.pop())
    texts = [text for _, _, text in stage.chunks(document_id)]
    assert any(texts == [f"# Section {n}\n\nversion{size} of it {n}." for n in range(size)] for size in (2, 3, 4)), (
        texts
    )


@pytest.mark.parametrize(
    ("fault", "action", "code", "asked"),
    [
        ("status", status(500), "provider_unavailable", 2),
        ("rejected", status(401), "provider_misconfigured", 1),
        ("silent", hang(), "provider_timeout", 2),
        ("garbled", raw(b"<html>"), "provider_bad_response", 2),
        ("wide", vectors(dimension=DIMENSION + 1), "misconfigured", 1),
        ("few", vectors(missing=1), "misconfigured", 1),
        ("infinite", vectors(value=float("nan")), "provider_bad_response", 2),
        ("gone", cut(), "provider_unavailable", 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_provider_that_fails_is_asked_so_often_and_then_said(
    stage: IngestStage, person: Person, fault: str, action: Action, code: str, asked: int
) -> None:
    stage.provider.script(fault, action)
    hasty = Embedder(Embeddings(provider="openai", model="hasty", dimension=DIMENSION))
    into = await VectorStoreManager(person.user.personal_workspace.pk, embedder=hasty).collection("hasty")
    document_id = stage.upload(person.token, manual(3, f"about [[{fault}]]"), to=str(into.id))
    await stage.ends(document_id, "failed")
    row = stage.document(person.token, document_id)
    assert row["error_code"] == code
    assert row["reason"]
    assert "sk-secret" not in row["reason"]
    assert len(stage.provider.exchanges(fault)) == asked
    stage.provider.script(fault, vectors())
    # The worker may have begun when the answer is written.
    assert rest(stage.server, person.token, "POST", f"/documents/{document_id}/retry")["state"] in ("queued", "parsing")
    await stage.ends(document_id)
    assert len(stage.chunks(document_id)) == 3


async def test_a_parser_that_is_killed_fails_its_document_alone(stage: IngestStage, person: Person) -> None:
    document_id = stage.upload(person.token, slow_file(), name="parts.html")
    reader = await stage.parser()
    reader.kill()
    await stage.ends(document_id, "failed")
    row = stage.document(person.token, document_id)
    assert row["error_code"] == "parse_failed"
    assert "parts.html" in row["reason"]
    fine = stage.upload(person.token, manual(2, "is fine"), name="fine.md")
    await stage.ends(fine)


async def test_a_document_that_kills_each_of_its_workers_is_given_up(stage: IngestStage, person: Person) -> None:
    poison = stage.upload(person.token, b"kills", name="a.poison")
    fine = stage.upload(person.token, manual(2, "is fine"), name="fine.md")
    await stage.ends(fine)
    await stage.ends(poison, "failed")
    assert stage.jobs(poison) == [(False, 2)]
    row = stage.document(person.token, poison)
    assert row["error_code"] == "worker_died"
    assert stage.worker.running
