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

import uvloop
from psycopg.conninfo import conninfo_to_dict

from benchmarks import by_hand, large, machine
from benchmarks.by_hand import FUSED, Milliseconds, Questions, check
from benchmarks.large import Loaded
from benchmarks.parts.recall import K
from benchmarks.report import Aim, Measure, progress, rounds
from benchmarks.servers import OURS
from benchmarks.stage import Stage

_VECTOR, _HYBRID = f"{OURS}, vector", f"{OURS}, vector and words"
_PLAIN, _ORM, _LANGCHAIN = "pgvector by hand", "pgvector through Django's ORM", "PGVectorStore (langchain-postgres)"
_PLAIN_HYBRID, _LANGCHAIN_HYBRID = f"{_PLAIN}, vector and words", f"{_LANGCHAIN}, vector and words"
_VIEW, _PEER = "bench_peer", Path(__file__).parents[1] / "peers" / "pgvectorstore.py"
_ROOT = Path(__file__).parents[2]


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
            _PLAIN: lambda: by_hand.ask(connection, by_hand.vector(connection, whole), questions, depth),
            _ORM: lambda: uvloop.run(by_hand.through_orm(whole, questions, depth)),
            **({_LANGCHAIN: lambda: peer.round("vector")} if peer else {}),
            _HYBRID: lambda: uvloop.run(_ours(workspace_id, whole, questions, "hybrid")),
            _PLAIN_HYBRID: lambda: by_hand.ask(connection, by_hand.hybrid(connection, whole), questions, depth),
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
        check(hits)
    return took


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
        "fused": FUSED,
        "questions": [[text, vector.tolist()] for text, vector in questions.items()],
    }
    command = [uv, "run", "--quiet", "--no-project", "--script", str(_PEER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            peer = _Peer(process)
            found = peer.ask(json.dumps(order))["found"]
            for ids, vector in zip(found, questions.values(), strict=False):
                check(set(ids) & {str(each) for each in whole.exact(vector, k=K)}, least=1)
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
