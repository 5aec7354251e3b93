"""What a search costs beside the query that is inside it, and beside LangChain's store on the same rows.

All ask the same index to the same depth, one question after the other, with vectors that are there already. By hand is
one prepared statement on one connection: no tenant and no rights; through Django's ORM it is the same, as applications
ask from async code. With words, the one by hand ranks all passages that have any of the question's; LangChain's store
looks for those that have all, and finds none for most questions.
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
_PLAIN, _ORM, _LANGCHAIN = "pgvector by hand", "pgvector through Django's ORM", "PGVectorStore (langchain-postgres)"
_PLAIN_HYBRID, _LANGCHAIN_HYBRID = f"{_PLAIN}, vector and words", f"{_LANGCHAIN}, vector and words"
#: Of each ranking so many are fused.
_FUSED = 50
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
            _PLAIN: lambda: _by_hand(connection, _plain(connection, whole), questions, depth),
            _ORM: lambda: uvloop.run(_through_orm(whole, questions, depth)),
            **({_LANGCHAIN: lambda: peer.round("vector")} if peer else {}),
            _HYBRID: lambda: uvloop.run(_ours(workspace_id, whole, questions, "hybrid")),
            _PLAIN_HYBRID: lambda: _by_hand(connection, _plain_hybrid(connection, whole), questions, depth),
            **({_LANGCHAIN_HYBRID: lambda: peer.round("hybrid")} if peer else {}),
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
        vector = {_PLAIN: Aim(1.1), _ORM: Aim(1), _LANGCHAIN: Aim(1)}
        hybrid = {_PLAIN_HYBRID: Aim(1), _LANGCHAIN_HYBRID: Aim(1)}
        self._kinds = [
            ([Measure(f"{what.format(kind)}: {part}", "ms", aims=aims) for part in ("p50", "p99")], names)
            for kind, aims, names in (
                ("vector", vector, (_VECTOR, _PLAIN, _ORM, _LANGCHAIN)),
                ("hybrid", hybrid, (_HYBRID, _PLAIN_HYBRID, _LANGCHAIN_HYBRID, _PLAIN)),
            )
        ]

    @property
    def all(self) -> list[Measure]:
        return [measure for measures, _ in self._kinds for measure in measures]

    def add(self, took: dict[str, list[float]]) -> None:
        for measures, names in self._kinds:
            for measure, place in zip(measures, (49, 98), strict=True):
                for name in names:
                    if name in took:
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


async def _through_orm(whole: Loaded, questions: Questions, depth: int) -> Milliseconds:
    # Django's, and the project's own: after Django's set-up.
    from django.db import connection
    from django.db.models.functions import Cast
    from pgvector.django import CosineDistance, HalfVectorField

    from kernel import database
    from vectorstore.models import ChunkVector

    def ask(vector: np.ndarray) -> list[Any]:
        near = CosineDistance(Cast("embedding", HalfVectorField(dimensions=large.DIMENSION)), vector)
        rows = ChunkVector.objects.filter(vector_set_id=whole.set_id).select_related("chunk__document")
        found = rows.defer("chunk__document__text").order_by(near)[: K + K // 2]
        with connection.cursor() as cursor:
            cursor.execute(f"SET hnsw.ef_search = {depth}")
        return sorted(found, key=lambda each: -float(np.dot(each.embedding, vector)))[:K]

    took = []
    for vector in questions.values():
        begun = perf_counter()
        hits = await database.run(ask, vector)
        took.append((perf_counter() - begun) * 1000)
        _check(hits)
    return took


def _by_hand(connection: Any, statement: str, questions: Questions, depth: int) -> Milliseconds:
    connection.execute(f"SET hnsw.ef_search = {depth}")
    took = []
    for text, vector in questions.items():
        begun = perf_counter()
        hits = connection.execute(statement, {"asked": vector, "text": text}).fetchall()
        took.append((perf_counter() - begun) * 1000)
        _check(hits)
    return took


def _plain(connection: Any, whole: Loaded) -> str:
    """The index's order, made good by the whole vectors, with what a citation needs."""
    return f"""
        SELECT c.id, c.text, c.start, c."end", c.metadata, d.title, d.source, n.distance
        FROM ({_near(connection, whole, K + K // 2, K)}) n
        JOIN vectorstore_chunk c ON c.id = n.chunk_id JOIN vectorstore_document d ON d.id = c.document_id
        ORDER BY distance"""


def _plain_hybrid(connection: Any, whole: Loaded) -> str:
    """Reciprocal rank fusion, as it is shown for pgvector; any word of the question counts."""
    return f"""
        WITH asked AS MATERIALIZED (
            SELECT string_agg(quote_literal(lexeme), ' | ')::tsquery AS query
            FROM unnest(to_tsvector('english', %(text)s))
        ),
        near AS (
            SELECT chunk_id, row_number() OVER (ORDER BY distance) AS place
            FROM ({_near(connection, whole, _FUSED, _FUSED)}) n
        ),
        words AS (
            SELECT chunk_id, row_number() OVER (ORDER BY rank DESC) AS place
            FROM (
                SELECT chunk_id, ts_rank(terms, query) AS rank
                FROM vectorstore_chunklookup, asked
                WHERE collection_id = '{whole.collection_id}' AND terms @@ query
                ORDER BY rank DESC LIMIT {_FUSED}
            ) w
        ),
        fused AS (
            SELECT coalesce(n.chunk_id, w.chunk_id) AS chunk_id,
                coalesce(1.0 / (60 + n.place), 0) + coalesce(1.0 / (60 + w.place), 0) AS score
            FROM near n FULL JOIN words w ON w.chunk_id = n.chunk_id
            ORDER BY score DESC LIMIT {K}
        )
        SELECT c.id, c.text, c.start, c."end", c.metadata, d.title, d.source, f.score
        FROM fused f
        JOIN vectorstore_chunk c ON c.id = f.chunk_id JOIN vectorstore_document d ON d.id = c.document_id
        ORDER BY f.score DESC"""


def _near(connection: Any, whole: Loaded, candidates: int, count: int) -> str:
    kind = large.index_type(connection, whole)
    return f"""
        SELECT chunk_id, embedding <=> %(asked)s AS distance
        FROM (
            SELECT chunk_id, embedding FROM vectorstore_chunkvector WHERE vector_set_id = '{whole.set_id}'
            ORDER BY embedding::{kind} <=> %(asked)s::{kind} LIMIT {candidates}
        ) v
        ORDER BY distance LIMIT {count}"""


class _Peer:
    """LangChain's store in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def round(self, mode: str) -> Milliseconds:
        return self.ask(mode)

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
        "fused": _FUSED,
        "questions": [[text, vector.tolist()] for text, vector in questions.items()],
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
                SELECT c.id, c.text, c.metadata, d.title, d.source, l.terms,
                    v.embedding::{large.index_type(connection, whole)} AS embedding
                FROM vectorstore_chunkvector v
                JOIN vectorstore_chunk c ON c.id = v.chunk_id JOIN vectorstore_document d ON d.id = c.document_id
                JOIN vectorstore_chunklookup l ON l.chunk_id = c.id
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
