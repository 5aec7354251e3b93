"""Provider `fake`: the same text has the same vector on every machine, and texts that share words are near.

Each word is hashed to a direction, as in feature hashing; good enough to test search without a model.
"""

import hashlib
import math
import random
import re
from typing import Any

_WORD = re.compile(r"\w+")


class FakeEmbeddings:
    """LangChain's Embeddings interface without its import."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        words = [self._direction(word) for word in _WORD.findall(text.lower())]
        total = [math.fsum(parts) for parts in zip(*words, strict=True)] or [0.0] * self._dimension
        length = math.hypot(*total) or 1.0
        return [part / length for part in total]

    def _direction(self, word: str) -> list[float]:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
        draw = random.Random(seed)  # noqa: S311  reproducible on purpose
        return [draw.gauss(0, 1) for _ in range(self._dimension)]


def create(config: dict[str, Any]) -> FakeEmbeddings:
    return FakeEmbeddings(config["dimension"])
