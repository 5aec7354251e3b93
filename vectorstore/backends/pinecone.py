"""Backend `pinecone`: a namespace of one Pinecone index for each set.

Every call may be repeated, so the SDK's own retries are safe. What was written is found some time later: that is the
service's nature. What was deleted is found by nobody at once, as hits are looked up in PostgreSQL.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from pinecone import AsyncIndex, AsyncPinecone
from pinecone.errors.exceptions import (
    ApiError,
    ForbiddenError,
    NotFoundError,
    PineconeError,
    PineconeValueError,
    RateLimitError,
    UnauthorizedError,
)

from kernel.errors import Misconfigured, StoreUnavailable
from llm import http
from vectorstore.backends import batches, fitting, has_length
from vectorstore.backends.conditions import condition, kept
from vectorstore.errors import EmbeddingMismatch
from vectorstore.filters import Filter
from vectorstore.values import Entry, Scored, SetInfo, SetStats

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Numbers of a request: the service takes 2 MB, and one takes up to 20 characters.
_NUMBERS = 60_000
_MOST_IN_BATCH = 100
_REMOVED_AT_ONCE = 1000


class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """VECTOR_STORE["OPTIONS"]["pinecone"]: the index by its `host`, or by its name (`index`, one request more)."""

    host: str = ""
    index: str = ""
    #: The variable of the environment that holds the key.
    api_key_variable: str = "PINECONE_API_KEY"
    #: Where an index's host is asked for; empty: Pinecone's own.
    control_host: str = ""
    #: Seconds for each call, its retries included.
    timeout: Annotated[float, Meta(gt=0)] = 10.0


class Pinecone:
    beside_rows: ClassVar[bool] = False

    def __init__(self, options: Options) -> None:
        self._options = options

    async def add(self, vectors: SetInfo, entries: Sequence[Entry]) -> None:
        fitting(vectors, entries)
        client = await self._client()
        await self._call(lambda: client.checked(vectors))
        kept_ones = [
            {"id": str(each.chunk_id), "values": list(each.vector), "metadata": kept(each.metadata)}
            for each in entries
            if has_length(each.vector)
        ]
        # The service refuses a vector without length; what stood in its place goes.
        await self.remove(vectors, [each.chunk_id for each in entries if not has_length(each.vector)])
        await self._upsert(client, vectors, kept_ones)

    async def remove(self, vectors: SetInfo, chunk_ids: Sequence[UUID]) -> None:
        client = await self._client()
        for batch in batches([str(each) for each in chunk_ids], _REMOVED_AT_ONCE):
            await self._call(
                lambda batch=batch: _unless_missing(client.index.delete(ids=batch, namespace=_name(vectors)))  # type: ignore[misc]
            )

    async def search(
        self, vectors: SetInfo, vector: Sequence[float], *, k: int, where: Filter | None = None
    ) -> list[Scored]:
        if not has_length(vector):
            return []
        client = await self._client()
        found = await self._call(
            lambda: client.index.query(top_k=k, vector=list(vector), namespace=_name(vectors), filter=condition(where))
        )
        return [Scored(UUID(each.id), each.score) for each in found.matches]

    async def describe(self, vectors: SetInfo, metadata: Mapping[UUID, Mapping[str, Any]]) -> None:
        # The service's update is for one vector at a time, and takes no name away: they are written again.
        client = await self._client()
        for batch in batches([str(each) for each in metadata], _size(vectors)):
            found = await self._call(
                lambda batch=batch: client.index.fetch(ids=batch, namespace=_name(vectors))  # type: ignore[misc]
            )
            fresh = [
                {"id": each, "values": list(held.values), "metadata": kept(metadata[UUID(each)])}
                for each, held in found.vectors.items()
            ]
            await self._upsert(client, vectors, fresh)

    async def drop(self, vectors: SetInfo) -> None:
        client = await self._client()
        await self._call(lambda: _unless_missing(client.index.delete_namespace(name=_name(vectors))))

    async def stats(self, vectors: SetInfo) -> SetStats:
        client = await self._client()
        found = await self._call(client.index.describe_index_stats)
        theirs = found.namespaces.get(_name(vectors))
        return SetStats(vectors=0 if theirs is None else theirs.vector_count)

    async def health(self) -> None:
        client = await self._client()
        await self._call(client.index.describe_index_stats)

    async def _upsert(self, client: "_Client", vectors: SetInfo, entries: Sequence[dict[str, Any]]) -> None:
        for batch in batches(entries, _size(vectors)):
            await self._call(lambda batch=batch: client.index.upsert(vectors=batch, namespace=_name(vectors)))  # type: ignore[misc]

    async def _client(self) -> "_Client":
        return await self._call(_shared(self._options, _key(self._options)).opened)

    async def _call(self, request: Callable[[], Awaitable[T]]) -> T:
        """Every failure is a typed one; a call that takes too long is cancelled, with its connection."""
        try:
            async with asyncio.timeout(self._options.timeout):
                return await request()
        except (UnauthorizedError, ForbiddenError) as error:
            raise Misconfigured(f"Pinecone refuses the key in {self._options.api_key_variable}.") from error
        except NotFoundError as error:
            raise Misconfigured("There is no such Pinecone index; see VECTOR_STORE['OPTIONS']['pinecone'].") from error
        except (PineconeError, TimeoutError) as error:
            logger.warning("action=vector_store_failed backend=pinecone error=%s", type(error).__name__)
            if isinstance(error, ApiError) and error.status_code == 400:
                raise Misconfigured(
                    "Pinecone refuses the request; are the index's dimension and metric right?"
                ) from error
            wait = error.retry_after if isinstance(error, RateLimitError) else None
            raise StoreUnavailable(
                "The vector store is not available; try again shortly.", retry_after=wait or 2.0
            ) from error


def create(config: dict[str, Any]) -> Pinecone:
    """Raises Misconfigured that names the option."""
    try:
        options = msgspec.convert(config.get("options", {}), Options)
    except msgspec.ValidationError as error:
        raise Misconfigured(f"VECTOR_STORE['OPTIONS']['pinecone']: {error}.") from error
    if bool(options.host) == bool(options.index):
        raise Misconfigured("VECTOR_STORE['OPTIONS']['pinecone'] needs 'host' or 'index' (its name), one of them.")
    return Pinecone(options)


class _Client:
    """An event loop's connections to the index."""

    def __init__(self, options: Options, key: str) -> None:
        self._options = options
        self._key = key
        self._index: AsyncIndex | None = None
        self._opening = asyncio.Lock()
        self._dimension: int | None = None

    @property
    def index(self) -> AsyncIndex:
        assert self._index is not None
        return self._index

    async def opened(self) -> "_Client":
        """With the index's host, asked for once."""
        async with self._opening:
            if self._index is None:
                self._index = await self._open()
        return self

    async def checked(self, vectors: SetInfo) -> None:
        """Raises EmbeddingMismatch unless the index takes such vectors, Misconfigured unless it compares by cosine."""
        if self._dimension is None:
            stats = await self.index.describe_index_stats()
            if stats.metric not in (None, "cosine"):
                raise Misconfigured(f"The Pinecone index compares by {stats.metric!r}; make one with 'cosine'.")
            self._dimension = stats.dimension
        if self._dimension not in (None, vectors.space.dimension):
            raise EmbeddingMismatch(
                f"The Pinecone index takes vectors of {self._dimension} dimensions, but {vectors.space.model} has"
                f" {vectors.space.dimension}; use an index of that dimension, or another backend."
            )

    async def aclose(self) -> None:
        if self._index is not None:
            await self._index.close()

    async def _open(self) -> AsyncIndex:
        options = self._options
        try:
            pinecone = AsyncPinecone(self._key, host=options.control_host or None, timeout=options.timeout)
            async with pinecone:
                return await pinecone.index(name=options.index, host=options.host)
        except PineconeValueError as error:
            raise Misconfigured("VECTOR_STORE['OPTIONS']['pinecone']: the host or the key is malformed.") from error


def _shared(options: Options, key: str) -> _Client:
    return http.shared(_maker(options, key))


@cache
def _maker(options: Options, key: str) -> Callable[[], _Client]:
    """The same function for the same options: what the loop's clients are known by."""
    return lambda: _Client(options, key)


def _key(options: Options) -> str:
    key = os.environ.get(options.api_key_variable, "").strip()
    if not key:
        raise Misconfigured(
            f"Backend 'pinecone' needs an API key in the environment variable {options.api_key_variable}."
        )
    return key


def _size(vectors: SetInfo) -> int:
    """How many of the set's vectors go in one request."""
    return max(1, min(_MOST_IN_BATCH, _NUMBERS // vectors.space.dimension))


def _name(vectors: SetInfo) -> str:
    return f"set-{vectors.id}"


async def _unless_missing(request: Awaitable[None]) -> None:
    """A namespace that was never written to does not exist."""
    try:
        await request
    except NotFoundError:
        return
