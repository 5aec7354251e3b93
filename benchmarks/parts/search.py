"""What a search costs beside the vector query that is inside it, and beside LangChain's store on the same rows.

All ask the same index to the same depth, one question after the other, with vectors that are there already. By hand is
one prepared statement on one connection: no tenant, no rights, no words. Ours by vector is to be held against it; ours
by vector and words does more.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any

import numpy as np
import uvloop
from psycopg.conninfo import conninfo_to_dict

from benchmarks import large, machine
from benchmarks.large import Loaded
from benchmarks.parts.recall import K
from benchmarks.report import Aim, Measure, progress, rounds
from benchmarks.servers import OURS
from benchmarks.stage import Stage

_VECTOR, _HYBRID = f"{OURS}, vector", f"{OURS}, vector and words"
_PLAIN, _LANGCHAIN = "pgvector by hand", "PGVectorStore (langchain-postgres)"
_VIEW, _PEER = "bench_peer", Path(__file__).parents[1] / "peers" / "pgvectorstore.py"
_ROOT = Path(__file__).parents[2]

Questions = dict[str, np.ndarray]
Milliseconds = list[float]


def run(stage: Stage, *, quick: bool) -> list[Measure]:
    passages, asked, repeats = (10_000, 100, 1) if quick else (100_000, 300, 4)
    table = large.table(stage, passages)
    questions, whole = table.questions(asked), table.whole
    measures = _Measures(f"{{}} search of {passages:,} passages, {K} hits")
    workspace_id = stage.workspace_id
    with machine.on_the_servers_core(), large.connect(stage) as connection, _langchain(stage, whole, questions) as peer:
        depth = _depth(whole)
        ways = {
            _VECTOR: lambda: uvloop.run(_ours(workspace_id, whole, questions, "vector")),
            _PLAIN: lambda: _plain(connection, whole, questions, depth),
            **({_LANGCHAIN: peer.round} if peer else {}),
            _HYBRID: lambda: uvloop.run(_ours(workspace_id, whole, questions, "hybrid")),
        }
        for number in rounds(repeats, seconds=90):
            took = {name: quantiles(way(), n=100) for name, way in ways.items()}
            if number:  # the first round only warms up
                measures.add(took)
            for name, each in took.items():
                progress(f"search {number or 'warm-up'}: {name} p50 {each[49]:.2f} ms, p99 {each[98]:.2f} ms")
    found = measures.all
    found[0].notes.append(f"search: each vector query looks at {depth} candidates of the index (hnsw.ef_search)")
    if not peer:
        found[0].notes.append(f"search: {_LANGCHAIN} was left out, because there is no uv to make its environment")
    return found


class _Measures:
    """p50 and p99 of our searches by vector, and of those by vector and words, each beside the others."""

    def __init__(self, what: str) -> None:
        aims = {_PLAIN: Aim(1.1), _LANGCHAIN: Aim(1)}
        self.vector = [Measure(f"{what.format('vector')}: {part}", "ms", aims=aims) for part in ("p50", "p99")]
        self.hybrid = [Measure(f"{what.format('hybrid')}: {part}", "ms") for part in ("p50", "p99")]

    @property
    def all(self) -> list[Measure]:
        return self.vector + self.hybrid

    def add(self, took: dict[str, list[float]]) -> None:
        peers = [name for name in took if name not in (_VECTOR, _HYBRID)]
        for measures, names in ((self.vector, [_VECTOR, *peers]), (self.hybrid, [_HYBRID, _VECTOR, *peers])):
            for measure, place in zip(measures, (49, 98), strict=True):
                for name in names:
                    measure.add(name, took[name][place])


async def _ours(workspace_id: Any, whole: Loaded, questions: Questions, mode: str) -> Milliseconds:
    # The project's own: after Django's set-up.
    from vectorstore.manager import VectorStoreManager

    manager = VectorStoreManager(workspace_id, embedder=large.Given(questions))  # type: ignore[arg-type]
    took = []
    for text in questions:
        begun = perf_counter()
        hits = await manager.search(text, k=K, mode=mode, collection=whole.name)
        took.append((perf_counter() - begun) * 1000)
        _check(hits)
    return took


def _plain(connection: Any, whole: Loaded, questions: Questions, depth: int) -> Milliseconds:
    """The index's order, made good by the whole vectors, with what a citation needs."""
    kind = large.index_type(connection, whole)
    connection.execute(f"SET hnsw.ef_search = {depth}")
    statement = f"""
        SELECT c.id, c.text, c.start, c."end", c.metadata, d.title, d.source, v.embedding <=> %(asked)s AS distance
        FROM (
            SELECT chunk_id, embedding FROM vectorstore_chunkvector WHERE vector_set_id = '{whole.set_id}'
            ORDER BY embedding::{kind} <=> %(asked)s::{kind} LIMIT {K + K // 2}
        ) v
        JOIN vectorstore_chunk c ON c.id = v.chunk_id JOIN vectorstore_document d ON d.id = c.document_id
        ORDER BY distance LIMIT {K}"""
    took = []
    for vector in questions.values():
        begun = perf_counter()
        hits = connection.execute(statement, {"asked": vector}).fetchall()
        took.append((perf_counter() - begun) * 1000)
        _check(hits)
    return took


class _Peer:
    """LangChain's store in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def round(self) -> Milliseconds:
        return self.ask("again")

    def ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        if not (answer := self._process.stdout.readline()):
            raise RuntimeError(f"{_LANGCHAIN} has ended.")
        return json.loads(answer)


@contextmanager
def _langchain(stage: Stage, whole: Loaded, questions: Questions) -> Iterator[_Peer | None]:
    """None: there is no uv."""
    uv = next((found for name in ("uv", str(_ROOT / ".tools" / "bin" / "uv")) if (found := shutil.which(name))), None)
    if uv is None:
        yield None
        return
    progress(f"starting: {_LANGCHAIN}")
    order = {
        "connect": conninfo_to_dict(stage.postgres.url) | {"options": f"-c hnsw.ef_search={_depth(whole)}"},
        "view": _view(stage, whole),
        "k": K,
        "questions": [vector.tolist() for vector in questions.values()],
    }
    command = [uv, "run", "--quiet", "--no-project", "--script", str(_PEER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            peer = _Peer(process)
            found = peer.ask(json.dumps(order))["found"]
            for ids, vector in zip(found, questions.values(), strict=False):
                _check(set(ids) & {str(each) for each in whole.exact(vector, k=K)}, least=1)
            yield peer
        finally:
            process.kill()


def _view(stage: Stage, whole: Loaded) -> str:
    """Our rows as the peer wants them: one table, with the vectors that the index is over."""
    with large.connect(stage) as connection:
        connection.execute(
            f"""CREATE OR REPLACE VIEW {_VIEW} AS
                SELECT c.id, c.text, c.metadata, d.title, d.source,
                    v.embedding::{large.index_type(connection, whole)} AS embedding
                FROM vectorstore_chunkvector v
                JOIN vectorstore_chunk c ON c.id = v.chunk_id JOIN vectorstore_document d ON d.id = c.document_id
                WHERE v.vector_set_id = '{whole.set_id}'"""
        )
    return _VIEW


def _depth(whole: Loaded) -> int:
    # The project's own: after Django's set-up.
    from vectorstore import index_scan, rows
    from vectorstore.models import Collection

    return index_scan.depth(rows.info(Collection.objects.get(id=whole.collection_id)).active, K).ef


def _check(hits: Any, *, least: int = K) -> None:
    if len(hits) < least:
        raise RuntimeError(f"A search found {len(hits)} instead of {least}.")
