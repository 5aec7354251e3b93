"""The configured embedding model, called from async code: in batches, off the event loop, queries remembered."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from math import isfinite
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from kernel.caches import Cache
from kernel.conf import EmbeddingModel
from kernel.conf import config as settings
from kernel.errors import ChainError, Misconfigured
from llm.errors import ProviderBadResponse
from llm.registry import embedding_providers

Vector = list[float]
#: The alias of the model that the EMBEDDINGS setting itself describes.
DEFAULT = "default"


class Embedder:
    """Vectors of one model. `model` names it with its provider, as collections store it."""

    def __init__(self, options: EmbeddingModel) -> None:
        self.model = f"{options.provider}:{options.model}"
        self.dimension = options.dimension
        #: Texts of one request.
        self.batch_size = options.batch_size
        self._options = options
        self._backends: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    async def documents(self, texts: Sequence[str]) -> list[Vector]:
        """One vector a text, in order."""
        vectors: list[Vector] = []
        for start in range(0, len(texts), self.batch_size):
            vectors += await self._embed(list(texts[start : start + self.batch_size]))
        return vectors

    async def query(self, text: str) -> Vector:
        """The vector to search with."""
        key = (self, sha256(text.encode(errors="surrogatepass")).digest())
        return _queries.get(key) or _queries.put(key, (await self._embed([text], query=True))[0])

    async def _embed(self, texts: list[str], *, query: bool = False) -> list[Vector]:
        try:
            backend = await self._backend()
            vectors = await _call(backend, texts, query=query)
        except ChainError:
            raise
        except Exception as error:
            # Imports LangChain, so only when a provider has failed.
            from llm.providers.failures import explain  # noqa: PLC0415

            raise explain(error) from error
        self._check(texts, vectors)
        return vectors

    async def _backend(self) -> Any:
        """One for each event loop: a remote provider's HTTP client belongs to the loop that opened it."""
        loop = asyncio.get_running_loop()
        if loop not in self._backends:
            # The import may take a second. The factory itself is quick, and asks for this loop's HTTP client.
            factory = await loop.run_in_executor(_thread(), embedding_providers.get, self._options.provider)
            options = {"model": self._options.model, "dimension": self.dimension, **self._options.options}
            self._backends[loop] = factory(options)
        return self._backends[loop]

    def _check(self, texts: list[str], vectors: list[Vector]) -> None:
        wrong = next((len(vector) for vector in vectors if len(vector) != self.dimension), None)
        if wrong is not None:
            raise Misconfigured(
                f"The embedding model {self.model} gives vectors of dimension {wrong}, but EMBEDDINGS['DIMENSION'] is"
                f" {self.dimension}; set it to {wrong}."
            )
        if len(vectors) != len(texts):
            raise Misconfigured(f"The embedding model {self.model} gave {len(vectors)} vectors for {len(texts)} texts.")
        # A sum is as far from finite as what is in it; PostgreSQL refuses such vectors, and says nothing of whose.
        if not all(isfinite(sum(vector)) for vector in vectors):
            raise ProviderBadResponse("The embedding model gave numbers that are none (NaN, infinity); try again.")


#: Query vectors kept by each process; people repeat and regenerate questions. The text itself is not kept.
_queries: Cache[tuple[Embedder, bytes], Vector] = Cache("query_embeddings", 1024)


@cache
def _thread() -> ThreadPoolExecutor:
    """One thread: local models use every core by themselves, and a query should not wait behind two bulk batches."""
    return ThreadPoolExecutor(1, thread_name_prefix="chain-embed")


async def _call(backend: Any, texts: list[str], *, query: bool) -> list[Vector]:
    """LangChain's Embeddings interface: its async methods where a provider has them, else our thread."""
    name, argument = ("embed_query", texts[0]) if query else ("embed_documents", texts)
    native = getattr(backend, f"a{name}", None)
    if native is not None:
        made = await native(argument)
    else:
        made = await asyncio.get_running_loop().run_in_executor(_thread(), getattr(backend, name), argument)
    vectors: list[Vector] = [made] if query else made
    return vectors


@cache
def _shared(options_key: bytes) -> Embedder:
    return Embedder(msgspec.json.decode(options_key, type=EmbeddingModel))


def embedder(alias: str = DEFAULT) -> Embedder:
    """This process's Embedder for the EMBEDDINGS setting, or for one of its MODELS.

    Raises Misconfigured that names the known ones.
    """
    return _shared(msgspec.json.encode(_known(alias)))


def embedder_of(model: str, dimension: int) -> Embedder | None:
    """The Embedder whose vectors these are (`model` as Embedder has it), or None if the setting names none."""
    aliases = (DEFAULT, *settings().embeddings.models)
    found = (embedder(alias) for alias in aliases)
    return next((each for each in found if (each.model, each.dimension) == (model, dimension)), None)


def _known(alias: str) -> EmbeddingModel:
    options = settings().embeddings
    if alias == DEFAULT:
        names = msgspec.structs.fields(EmbeddingModel)
        return EmbeddingModel(**{name.name: getattr(options, name.name) for name in names})
    if alias not in options.models:
        known = ", ".join([DEFAULT, *sorted(options.models)])
        raise Misconfigured(f"There is no embedding model {alias!r} in EMBEDDINGS['MODELS']; known: {known}.")
    return options.models[alias]
