"""What the fault tests of ingestion share: a server that takes uploads, a worker that may die, a broker, a provider.

The rows are read as they stand in PostgreSQL; everything else goes by REST, as a user's client does it.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import psycopg
from celery import Celery
from redis import Redis

from django_chain.celery import celery_url
from django_chain.embedded.valkey import Valkey
from tests.support.scripted_embeddings import DIMENSION, embeddings
from tests.support.scripted_provider import ScriptedProvider
from tests.support.server import Server, rest
from tests.support.stage import eventually, settings
from tests.support.worker import Worker

LEASE = 2.0
#: A secret in the settings, which no log and no reason may tell.
KEY = "sk-secret-of-the-embeddings"
#: Texts of a request to the provider.
BATCH = 50


@dataclass
class IngestStage:
    database_url: str
    valkey: Valkey
    provider: ScriptedProvider
    env: dict[str, str]
    server: Server
    worker: Worker
    _celery: Celery = field(init=False)

    def __post_init__(self) -> None:
        self._celery = Celery("tests", broker=celery_url(self.valkey.url), set_as_current=False)

    def upload(self, token: str, content: str | bytes, *, name: str = "manual.md", to: str = "default") -> str:
        """The id of the document that was taken in."""
        return str(self.uploaded(token, content, name=name, to=to)["document"]["id"])

    def uploaded(self, token: str, content: str | bytes, *, name: str = "manual.md", to: str = "default") -> Any:
        """What the answer says of the file."""
        files = [("files", (name, content, "application/octet-stream"))]
        [made] = rest(self.server, token, "POST", f"/collections/{to}/documents", files=files)["documents"]
        return made

    def document(self, token: str, document_id: str) -> dict[str, Any]:
        return dict(rest(self.server, token, "GET", f"/documents/{document_id}"))

    def delete(self, token: str, document_id: str) -> None:
        url = f"{self.server.url}/api/v1/documents/{document_id}"
        answer = httpx.delete(url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
        assert answer.status_code == 204, answer.text

    def found(self, token: str, query: str, **more: Any) -> list[str]:
        """The texts of the hits; asked again, as clients do it, while there is no database."""
        body = {"query": query, "mode": "text", "k": 50} | more
        until = time.monotonic() + 10
        while True:
            headers = {"Authorization": f"Bearer {token}"}
            answer = httpx.post(f"{self.server.url}/api/v1/search", headers=headers, json=body, timeout=10)
            if answer.status_code == 200:
                return [hit["text"] for hit in answer.json()["hits"]]
            assert answer.json()["code"] == "database_unavailable", answer.text
            assert time.monotonic() < until, answer.text
            time.sleep(0.05)

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(sql, values).fetchall()

    def write(self, sql: str, *values: Any) -> None:
        with psycopg.connect(self.database_url) as connection:
            connection.execute(sql, values)

    def state(self, document_id: str) -> str:
        return str(self.rows("SELECT state FROM vectorstore_document WHERE id = %s", document_id)[0][0])

    def chunks(self, document_id: str) -> list[tuple[Any, ...]]:
        """Id, position and text of a document's passages; each has one vector and one entry for look-ups."""
        found = self.rows(
            "SELECT id, position, text FROM vectorstore_chunk WHERE document_id = %s ORDER BY position, id", document_id
        )
        assert [position for _, position, _ in found] == list(range(len(found)))
        ids = [each for each, _, _ in found]
        for table in ("chunkvector", "chunklookup"):
            [(count,)] = self.rows(f"SELECT count(*) FROM vectorstore_{table} WHERE chunk_id = ANY(%s)", ids)
            assert count == len(found), table
        return found

    def jobs(self, document_id: str) -> list[tuple[Any, ...]]:
        """`open` and `attempts` of the document's job, if it has one."""
        return self.rows("SELECT open, attempts FROM vectorstore_ingestjob WHERE document_id = %s", document_id)

    def tell(self, task: str, *args: Any) -> None:
        with self._celery.connection_for_write() as connection:
            self._celery.send_task(task, args=args, connection=connection, ignore_result=True)

    def done(self, task: str) -> int:
        """How often the worker has ended this task."""
        return len(re.findall(rf"{task}\[\S+\] succeeded", self.worker.log_text()))

    def waiting(self) -> int:
        """Words in the broker that no worker has taken."""
        with Redis.from_url(self.valkey.url) as client:
            return int(client.llen("celery"))

    def sweep(self) -> None:
        """As beat does it every ten seconds."""
        self.tell("vectorstore.tasks.sweep_ingest_jobs")

    async def ends(self, document_id: str, state: str = "ready", *, deadline: float = 20) -> None:
        """Wait for a document's last state, with sweeps; the job is then over."""
        until = time.monotonic() + deadline
        while (now := self.state(document_id)) not in ("ready", "failed"):
            assert time.monotonic() < until, f"still {now} after {deadline} s\n{self.worker.log_text()[-6000:]}"
            if not self.waiting():
                await asyncio.to_thread(self.sweep)
            await asyncio.sleep(0.1)
        assert now == state, self.rows("SELECT reason FROM vectorstore_document WHERE id = %s", document_id)
        assert self.jobs(document_id) == [] or state == "failed"

    async def parser(self) -> psutil.Process:
        """The process that reads a document for the worker, once it has confined itself."""

        def running() -> psutil.Process | None:
            for child in self.worker.children():
                try:
                    confined = "NoNewPrivs:\t1" in Path(f"/proc/{child.pid}/status").read_text()
                    if confined and any(part.endswith("child.py") for part in child.cmdline()):
                        return child
                except (psutil.NoSuchProcess, FileNotFoundError):
                    continue
            return None

        found: psutil.Process = await eventually(running, deadline=15)
        return found

    @contextmanager
    def locked(self, table: str, document_id: str) -> Iterator[psycopg.Connection[Any]]:
        """The document's row in `table` is held against everyone."""
        column = {"collection": "id", "vectorset": "collection_id"}[table]
        with psycopg.connect(self.database_url) as connection:
            connection.execute(
                f"SELECT 1 FROM vectorstore_{table} WHERE {column} ="
                " (SELECT collection_id FROM vectorstore_document WHERE id = %s) FOR UPDATE",
                [document_id],
            )
            yield connection

    def waits_for(self, holder: psycopg.Connection[Any]) -> bool:
        """Whether somebody waits for what this connection holds."""
        waiting = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        return bool(self.rows(waiting, holder.info.backend_pid))


@contextmanager
def ingest_stage(
    base: dict[str, str], directory: Path, *, beat: bool = False, **sections: Any
) -> Iterator[IngestStage]:
    """All of it, started. `sections`: more of DJANGO_CHAIN."""
    with Valkey(directory) as valkey, embeddings() as provider:
        options = {"base_url": provider.base_url, "api_key": KEY, "max_retries": 0}
        model = {"PROVIDER": "openai", "MODEL": "scripted", "DIMENSION": DIMENSION, "BATCH_SIZE": BATCH}
        hasty = model | {"MODEL": "hasty", "OPTIONS": options | {"timeout": 0.5}}
        chosen = {
            "VECTOR_STORE": {"INGEST_LEASE": LEASE, "INGEST_ATTEMPTS": 2},
            "EMBEDDINGS": model | {"OPTIONS": options, "MODELS": {"hasty": hasty}},
        }
        env = base | {"REDIS_URL": valkey.url} | settings(**(chosen | sections))
        with Server(env, wait_ready=False) as server, Worker(env, beat=beat) as worker:
            server.wait_ready()
            yield IngestStage(base["DATABASE_URL"], valkey, provider, env, server, worker)
            for log in (server.log_text(), worker.log_text()):
                assert KEY not in log


def manual(sections: int, words: str) -> str:
    """A document with so many passages, each with these words."""
    return "\n\n".join(f"# Section {number}\n\n{words} {number}." for number in range(sections))


def slow_file() -> bytes:
    """A file that takes its reader a second or two, and has two passages."""
    return b"<html><body><h1>Parts</h1>" + b"<p> </p>" * 200_000 + b"<h2>End</h2><p>The last part.</p></body></html>"
