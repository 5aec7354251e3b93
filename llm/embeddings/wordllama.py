"""Provider `wordllama`: static token vectors from a wheel. No network, no key, about half a millisecond a query."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy
import wordllama

from kernel.errors import Misconfigured


class WordLlamaEmbeddings:
    """LangChain's Embeddings interface without its import."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors = _model(self._dimension).embed(texts)
        lengths = numpy.linalg.norm(vectors, axis=1, keepdims=True)
        # A text without a token has no direction: zeros, which no search finds, not NaN, which PostgreSQL refuses.
        normed: list[list[float]] = (vectors / numpy.where(lengths > 0, lengths, 1)).tolist()
        return normed

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def create(config: dict[str, Any]) -> WordLlamaEmbeddings:
    return WordLlamaEmbeddings(config["dimension"])


@cache
def _model(dimension: int) -> wordllama.WordLlamaInference:
    """The weights: read on the first use, once a process (0.2 s, 120 MB)."""
    # It looks for its tokenizer in `tokenizer/`, the wheel has `tokenizers/`, and then it would ask the network.
    # As a "cache" the package's own folder has the layout that it expects: nothing is copied, nothing downloaded.
    folder = Path(wordllama.__file__).parent
    try:
        return wordllama.WordLlama.load(cache_dir=folder, trunc_dim=dimension, disable_download=True)
    except (ValueError, FileNotFoundError) as error:
        raise Misconfigured(
            f"wordllama has no vectors of dimension {dimension}; set EMBEDDINGS['DIMENSION'] to 256, 128 or 64."
        ) from error
