"""How often the passage that answers a question is among the hits: by vectors, by words, by both, and reranked.

The questions are written by hand, most of them in other words than the passage's (data/questions.json). A hit counts
if it is of the right tale and holds the quote that answers.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any
from uuid import UUID

import uvloop

from benchmarks.report import Aim, Measure, progress
from benchmarks.stage import Stage
from benchmarks.tales import DATA, tales

_COLLECTION, _DEPTH = "quality", 10
_HYBRID, _VECTOR, _TEXT = "hybrid", "vector", "text"
_MODES: dict[str, dict[str, Any]] = {
    _HYBRID: {"mode": "hybrid"},
    _VECTOR: {"mode": "vector"},
    _TEXT: {"mode": "text"},
    "hybrid, reranked (lexical)": {"mode": "hybrid", "rerank": "lexical"},
    "vector, reranked (lexical)": {"mode": "vector", "rerank": "lexical"},
}
#: What is asked of `hybrid`, against each of the two that it is made from.
_NO_WORSE = {_VECTOR: Aim(1, at_least=True), _TEXT: Aim(1, at_least=True)}


@dataclass(frozen=True, kw_only=True)
class Question:
    question: str
    #: The tale's file.
    document: str
    quote: str
    #: False: it asks with the passage's words.
    own_words: bool


def run(stage: Stage, *, quick: bool) -> list[Measure]:
    return uvloop.run(_measure(stage.workspace_id, quick=quick))


async def _measure(workspace_id: UUID, *, quick: bool) -> list[Measure]:
    questions = [Question(**each) for each in json.loads((DATA / "questions.json").read_text())]
    questions = questions[::4] if quick else questions
    search, chunks = await _indexed(workspace_id)
    what = f"quality, {len(questions)} questions over {chunks} passages"
    hit_5 = Measure(f"{what}: hit@5", "%", aims=_NO_WORSE, more_is_better=True)
    reciprocal = Measure(f"{what}: MRR@{_DEPTH}", "", aims=_NO_WORSE, more_is_better=True)
    for name, options in _MODES.items():
        places = {each: await _place(search, each, options) for each in questions}
        hit_5.add(name, 100 * _share(places, lambda each: True))
        reciprocal.add(name, fmean(1 / place if place else 0 for place in places.values()))
        own, same = _share(places, lambda each: each.own_words), _share(places, lambda each: not each.own_words)
        said = f"{name} finds {own:.0%} of what is asked in own words, {same:.0%} of what is asked in the passage's"
        hit_5.notes.append(f"quality, hit@5: {said}")
        progress(f"quality: {said}")
    return [hit_5, reciprocal]


async def _indexed(workspace_id: UUID) -> tuple[Callable[..., Any], int]:
    """A search of the tales, and of how many passages."""
    # The project's own: after Django's set-up.
    from vectorstore.manager import VectorStoreManager
    from vectorstore.values import SourceDocument

    manager = VectorStoreManager(workspace_id)
    documents = [SourceDocument(source=tale.name, title=tale.title, text=tale.text) for tale in tales()]
    made = await manager.ingest(documents, collection=_COLLECTION)

    async def search(question: str, **options: Any) -> list[Any]:
        return await manager.search(question, collection=_COLLECTION, k=_DEPTH, **options)

    return search, sum(each.chunks for each in made)


async def _place(search: Callable[..., Any], asked: Question, options: dict[str, Any]) -> int:
    """The place of the first hit that answers, from 1; 0: none does."""
    hits = await search(asked.question, **options)
    right = (
        place
        for place, hit in enumerate(hits, 1)
        if hit.source == asked.document and asked.quote in " ".join(hit.text.split())
    )
    return next(right, 0)


def _share(places: dict[Question, int], of: Callable[[Question], bool]) -> float:
    """How many of these questions have their answer among the first five hits."""
    return fmean(0 < place <= 5 for each, place in places.items() if of(each))
