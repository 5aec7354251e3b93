"""Putting the hits of a search in another order: rerankers, what is new before what is old, and variety."""

import asyncio
import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Protocol

import numpy as np

from llm.registry import rerankers
from vectorstore.values import Hit

logger = logging.getLogger(__name__)

#: Seconds that a reranker may take.
TIMEOUT: Final = 5.0
_WORD = re.compile(r"\w+")
_SECONDS_A_DAY: Final = 86_400


class Reranker(Protocol):
    """Made by a factory `create(config)`, registered by register_reranker; `config` is empty."""

    async def scores(self, query: str, hits: Sequence[Hit]) -> Sequence[float]:
        """A score for each hit, in their order; the highest is the best."""


class Lexical:
    """Hits that hold more of the question's words, the rare ones before the common, come first.

    Words count by their first letters, so that most inflections are one word. What the search thought counts half.
    """

    async def scores(self, query: str, hits: Sequence[Hit]) -> list[float]:
        texts = [_stems(f"{hit.title} {hit.text}") for hit in hits]
        held = Counter(stem for text in texts for stem in text)
        weights = {stem: math.log(1 + len(hits) / (1 + held[stem])) for stem in _stems(query)}
        whole = sum(weights.values()) or 1.0
        shares = [sum(weights[stem] for stem in weights if stem in text) / whole for text in texts]
        return [(hit.score + share) / 2 for hit, share in zip(hits, shares, strict=True)]


def create_lexical(config: dict[str, Any]) -> Lexical:
    return Lexical()


async def reranked(name: str, query: str, hits: list[Hit]) -> list[Hit]:
    """The hits as a registered reranker scores them; as they were if it fails: a search works without it."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reranker: Reranker = rerankers.get(name)({})
            scores = [float(score) for score in await reranker.scores(query, hits)]
        return _by_score([replace(hit, score=score) for hit, score in zip(hits, scores, strict=True)])
    except Exception as error:  # noqa: BLE001  a team's own code, or a service that it asks
        logger.warning("action=rerank_failed reranker=%s error=%s", name, type(error).__name__)
        return hits


def decayed(hits: list[Hit], *, half_life: float, now: datetime) -> list[Hit]:
    """Scores halved for each `half_life` days of age; what is dated ahead is new."""
    return _by_score([replace(hit, score=hit.score * _freshness(hit, half_life, now)) for hit in hits])


def diverse(hits: list[Hit], vectors: Sequence[Sequence[float]], *, k: int, relevance: float) -> list[Hit]:
    """`k` hits by maximal marginal relevance: each next one is as relevant, and as unlike those before, as can be.

    `vectors` are the hits', in their order.
    """
    if not hits:
        return []
    found = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit = np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)
    scores = np.asarray([hit.score for hit in hits], dtype=np.float32)
    scores = scores / max(float(np.abs(scores).max()), 1e-9)
    chosen: list[int] = []
    likeness = np.zeros(len(hits), dtype=np.float32)
    left = np.ones(len(hits), dtype=bool)
    while len(chosen) < min(k, len(hits)):
        worth = np.where(left, relevance * scores - (1 - relevance) * likeness, -np.inf)
        best = int(worth.argmax())
        chosen.append(best)
        left[best] = False
        alike = unit @ unit[best]
        likeness = alike if len(chosen) == 1 else np.maximum(likeness, alike)
    return [hits[n] for n in chosen]


def _freshness(hit: Hit, half_life: float, now: datetime) -> float:
    if hit.dated_at is None:
        return 1.0
    days = max(0.0, (now - hit.dated_at).total_seconds() / _SECONDS_A_DAY)
    return float(0.5 ** (days / half_life))


def _by_score(hits: list[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: -hit.score)


def _stems(text: str) -> set[str]:
    return {word[:5] for word in _WORD.findall(text.casefold())}
