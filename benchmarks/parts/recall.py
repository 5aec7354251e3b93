"""Whether the approximate index finds what an exact comparison finds, also where a filter leaves out nearly all.

The filters of a half and of a hundredth have nothing to do with what the passages are about; the last one has: the
question is about anything, the passages it may find are of one topic, far away from it as a rule.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median
from time import perf_counter
from typing import Any

import numpy as np
import uvloop

from benchmarks import large, machine
from benchmarks.large import Loaded, Table
from benchmarks.report import Aim, Measure, progress
from benchmarks.servers import OURS
from benchmarks.stage import Stage

K = 10
PLAIN = "pgvector by hand, as it comes"


@dataclass(frozen=True)
class Case:
    what: str
    collection: Loaded
    where: dict[str, Any] | None = None
    #: Which of its passages the filter lets through; None: all.
    among: np.ndarray | None = None


def run(stage: Stage, *, quick: bool) -> list[Measure]:
    passages, asked = (10_000, 50) if quick else (100_000, 200)
    table = large.table(stage, passages)
    questions = table.questions(asked)
    workspace_id, measures = stage.workspace_id, []
    with machine.on_the_servers_core():
        for case in _cases(table):
            exact = [case.collection.exact(vector, k=K, among=case.among) for vector in questions.values()]
            what = f"recall@{K}, {case.what}"
            measure = Measure(what, "", aims={OURS: Aim(0.99, at_least=True)}, more_is_better=True)
            with large.connect(stage) as connection:
                ways = {OURS: _ours(workspace_id, case, questions), PLAIN: _plain(connection, case)}
                for name, way in ways.items():
                    found, milliseconds = way(questions)
                    share = fmean(len(got & right) / K for got, right in zip(found, exact, strict=True))
                    measure.add(name, share)
                    said = f"{name} {share:.4f} at {milliseconds:.1f} ms in the median"
                    measure.notes.append(f"{what}: {said}")
                    progress(f"{what}: {said}")
            measures.append(measure)
    return measures


def _cases(table: Table) -> list[Case]:
    whole = table.whole
    count = f"{len(whole.ids):,} passages"
    return [
        Case(f"{count}, half of the table", whole),
        Case(f"{count}, a filter of 50 %", whole, {"eq": {"language": "en"}}, whole.languages == 0),
        Case(f"{count}, a filter of 1 %", whole, {"eq": {"year": 7}}, whole.years == 7),
        Case(f"{count}, a filter of 1 % by topic", whole, {"eq": {"topic": 7}}, whole.topics == 7),
        Case(f"{len(table.small.ids):,} passages, 1 % of the table", table.small),
    ]


Way = Callable[[dict[str, np.ndarray]], tuple[list[set[Any]], float]]


def _ours(workspace_id: Any, case: Case, questions: dict[str, np.ndarray]) -> Way:
    # The project's own: after Django's set-up.
    from vectorstore.manager import VectorStoreManager

    manager = VectorStoreManager(workspace_id, embedder=large.Given(questions))  # type: ignore[arg-type]

    async def search(asked: dict[str, np.ndarray]) -> tuple[list[set[Any]], float]:
        found, took = [], []
        for text in asked:
            begun = perf_counter()
            hits = await manager.search(text, k=K, mode="vector", collection=case.collection.name, where=case.where)
            took.append(perf_counter() - begun)
            found.append({hit.id for hit in hits})
        return found, median(took) * 1000

    return lambda asked: uvloop.run(search(asked))


def _plain(connection: Any, case: Case) -> Way:
    """What one writes first: pgvector's own depth, the filter in the WHERE."""
    kind, filtered, values = large.index_type(connection, case.collection), "", []
    if case.where is not None:
        ((name, value),) = case.where["eq"].items()
        filtered = "JOIN vectorstore_chunklookup l ON l.chunk_id = v.chunk_id AND l.metadata ->> %s = %s"
        values = [name, str(value)]
    statement = f"""
        SELECT v.chunk_id FROM vectorstore_chunkvector v {filtered} WHERE v.vector_set_id = '{case.collection.set_id}'
        ORDER BY v.embedding::{kind} <=> %s::{kind} LIMIT {K}"""

    def search(asked: dict[str, np.ndarray]) -> tuple[list[set[Any]], float]:
        found, took = [], []
        for vector in asked.values():
            begun = perf_counter()
            rows = connection.execute(statement, [*values, vector]).fetchall()
            took.append(perf_counter() - begun)
            found.append({chunk_id for (chunk_id,) in rows})
        return found, median(took) * 1000

    return search
