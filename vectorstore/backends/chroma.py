"""Backend `chroma`: a collection of Chroma for each set, in a folder or on a server.

Chroma's client is synchronous where it works in a folder, so calls run in a few threads of their own. It embeds nothing
and reports nothing: vectors come from us, and its telemetry is off.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import Annotated, Any, ClassVar, TypeVar
from uuid import UUID

import chromadb
import httpx
import msgspec
from cachetools import LRUCache
from chromadb.api import ClientAPI
from chromadb.api.client import Client
from chromadb.api.models.Collection import Collection
from chromadb.auth import UserIdentity
from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT, Settings
from chromadb.errors import ChromaAuthError, ChromaError, InvalidDimensionException, NotFoundError
from msgspec import Meta, Struct, field

from kernel.errors import ChainError, Misconfigured, StoreUnavailable
from vectorstore.backends import batches, fitting, has_length
from vectorstore.backends.conditions import condition, kept
from vectorstore.errors import EmbeddingMismatch
from vectorstore.filters import Filter
from vectorstore.values import Entry, Scored, SetInfo, SetStats

logger = logging.getLogger(__name__)
T = TypeVar("T")

_BATCH = 500
_THREADS = 4
#: Calls that run or wait for a thread, those included that nobody waits for any more.
_MOST = 64


class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """VECTOR_STORE["OPTIONS"]["chroma"]: `path` of a folder, or a server's `host`."""

    path: str = ""
    host: str = ""
    port: int = 8000
    ssl: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    tenant: str = DEFAULT_TENANT
    database: str = DEFAULT_DATABASE
    #: Seconds for each call.
    timeout: Annotated[float, Meta(gt=0)] = 10.0


class Chroma:
    beside_rows: ClassVar[bool] = False

    def __init__(self, options: Options) -> None:
        self._options = options

    async def add(self, vectors: SetInfo, entries: Sequence[Entry]) -> None:
        fitting(vectors, entries)
        for batch in batches(entries, _BATCH):
            await self._call(_add, vectors, batch)

    async def remove(self, vectors: SetInfo, chunk_ids: Sequence[UUID]) -> None:
        for batch in batches(chunk_ids, _BATCH):
            await self._call(_remove, vectors, [str(each) for each in batch])

    async def search(
        self, vectors: SetInfo, vector: Sequence[float], *, k: int, where: Filter | None = None
    ) -> list[Scored]:
        if not has_length(vector):
            return []
        return await self._call(_search, vectors, list(vector), k, {"where": condition(where)})

    async def search_among(
        self, vectors: SetInfo, vector: Sequence[float], chunk_ids: Sequence[UUID], *, k: int
    ) -> list[Scored]:
        if not has_length(vector) or not chunk_ids:
            return []
        return await self._call(_search_among, vectors, list(vector), k, [str(each) for each in chunk_ids])

    async def describe(self, vectors: SetInfo, metadata: Mapping[UUID, Mapping[str, Any]]) -> None:
        for batch in batches(list(metadata.items()), _BATCH):
            await self._call(_describe, vectors, {str(each): kept(values) for each, values in batch})

    async def drop(self, vectors: SetInfo) -> None:
        await self._call(_drop, vectors)

    async def stats(self, vectors: SetInfo) -> SetStats:
        return SetStats(vectors=await self._call(_count, vectors))

    async def health(self) -> None:
        await self._call(lambda store: store.client.heartbeat())

    async def _call(self, work: Callable[..., T], *args: Any) -> T:
        """`work(store, *args)` in one of our threads; every failure is a typed one."""
        try:
            async with asyncio.timeout(self._options.timeout):
                return await _threads().run(lambda: _twice(self._options, work, args))
        except ChainError:
            raise
        except ChromaAuthError as error:
            raise Misconfigured("Chroma refuses the credentials of VECTOR_STORE['OPTIONS']['chroma'].") from error
        except InvalidDimensionException as error:
            raise EmbeddingMismatch("Chroma's collection holds vectors of another dimension.") from error
        except Exception as error:  # Chroma raises bare Exceptions for what its server answers
            logger.warning("action=vector_store_failed backend=chroma error=%s", type(error).__name__)
            if isinstance(error, ChromaError) and error.code() == 400 and "dimension" in error.message():
                raise EmbeddingMismatch("Chroma's collection holds vectors of another dimension.") from error
            raise StoreUnavailable("The vector store is not available; try again shortly.") from error


def create(config: dict[str, Any]) -> Chroma:
    """Raises Misconfigured that names the option."""
    try:
        options = msgspec.convert(config.get("options", {}), Options)
    except msgspec.ValidationError as error:
        raise Misconfigured(f"VECTOR_STORE['OPTIONS']['chroma']: {error}.") from error
    if bool(options.path) == bool(options.host):
        raise Misconfigured(
            "VECTOR_STORE['OPTIONS']['chroma'] needs 'path' (a folder) or 'host' (a server), one of them."
        )
    return Chroma(options)


class _Store:
    """A client, shared by the process, and the collections it has looked up."""

    def __init__(self, client: ClientAPI) -> None:
        self.client = client
        self._known: LRUCache[UUID, Collection] = LRUCache(512)
        self._lock = Lock()

    def collection(self, vectors: SetInfo, *, make: bool = False) -> Collection:
        """Raises NotFoundError."""
        with self._lock:
            if (known := self._known.get(vectors.id)) is not None:
                return known
        # Without an embedding function: the default one would fetch a model.
        made = (
            self.client.get_or_create_collection(
                _name(vectors), embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
            )
            if make
            else self.client.get_collection(_name(vectors), embedding_function=None)
        )
        with self._lock:
            self._known[vectors.id] = made
        return made

    def forget(self, vectors: SetInfo) -> None:
        with self._lock:
            self._known.pop(vectors.id, None)


_opening = Lock()


@cache
def _opened(key: bytes) -> _Store:
    options = msgspec.json.decode(key, type=Options)
    settings = Settings(anonymized_telemetry=False)
    if options.path:
        return _Store(chromadb.PersistentClient(options.path, settings, options.tenant, options.database))
    settings.chroma_api_impl = "chromadb.api.fastapi.FastAPI"
    settings.chroma_server_host, settings.chroma_server_http_port = options.host, options.port
    settings.chroma_server_ssl_enabled, settings.chroma_server_headers = options.ssl, dict(options.headers)
    return _Store(_Patient(options, settings))


class _Patient(Client):
    """Chroma's own HTTP clients (this has two) wait without end, also for what the constructor asks."""

    def __init__(self, options: Options, settings: Settings) -> None:
        self._timeout = httpx.Timeout(options.timeout)
        super().__init__(options.tenant, options.database, settings)

    def get_user_identity(self) -> UserIdentity:
        self._server._session.timeout = self._timeout  # type: ignore[attr-defined]  # noqa: SLF001
        return super().get_user_identity()

    def _validate_tenant_database(self, tenant: str, database: str) -> None:
        self._admin_client._server._session.timeout = self._timeout  # type: ignore[attr-defined]  # noqa: SLF001
        super()._validate_tenant_database(tenant, database)


def _store(options: Options) -> _Store:
    with _opening:
        return _opened(msgspec.json.encode(options))


def _twice(options: Options, work: Callable[..., T], args: tuple[Any, ...]) -> T:
    """Once more after a connection that broke: every call of ours may be repeated."""
    try:
        return work(_store(options), *args)
    except (httpx.NetworkError, httpx.RemoteProtocolError):
        return work(_store(options), *args)


def _name(vectors: SetInfo) -> str:
    return f"set-{vectors.id}"


def _fresh(store: _Store, vectors: SetInfo, work: Callable[[Collection], T], *, make: bool = False) -> T:
    """`work(collection)`, looked up anew if another process has dropped and made it since."""
    try:
        return work(store.collection(vectors, make=make))
    except NotFoundError:
        store.forget(vectors)
        return work(store.collection(vectors, make=make))


def _known(store: _Store, vectors: SetInfo, work: Callable[[Collection], T], otherwise: T) -> T:
    """`work(collection)`; a set that was never written to has no collection."""
    try:
        return _fresh(store, vectors, work)
    except NotFoundError:
        return otherwise


def _add(store: _Store, vectors: SetInfo, entries: Sequence[Entry]) -> None:
    # A vector without length is near to nothing.
    kept_ones = [each for each in entries if has_length(each.vector)]
    gone = [str(each.chunk_id) for each in entries if not has_length(each.vector)]
    if gone:
        _remove(store, vectors, gone)
    if kept_ones:
        _fresh(
            store,
            vectors,
            lambda collection: collection.upsert(
                ids=[str(each.chunk_id) for each in kept_ones],
                embeddings=_embeddings([each.vector for each in kept_ones]),
                metadatas=[kept(each.metadata) for each in kept_ones],
            ),
            make=True,
        )


def _embeddings(vectors: Sequence[Sequence[float]]) -> Any:
    """Chroma takes lists, whatever its types say."""
    return [list(vector) for vector in vectors]


def _remove(store: _Store, vectors: SetInfo, ids: list[str]) -> None:
    _known(store, vectors, lambda collection: collection.delete(ids=ids) and None, None)


def _describe(store: _Store, vectors: SetInfo, metadata: dict[str, dict[str, Any]]) -> None:
    def update(collection: Collection) -> None:
        held = collection.get(ids=list(metadata), include=["metadatas"])
        ids, before = held["ids"], held["metadatas"] or []
        if ids:
            # A name that isn't given keeps its value; None takes it away.
            fresh = [dict.fromkeys(old or ()) | metadata[each] for each, old in zip(ids, before, strict=True)]
            collection.update(ids=ids, metadatas=list(fresh))

    _known(store, vectors, update, None)


def _search(store: _Store, vectors: SetInfo, vector: list[float], k: int, among: dict[str, Any]) -> list[Scored]:
    """`among`: the arguments of Chroma's query that narrow it."""

    def query(collection: Collection) -> list[Scored]:
        asked = _embeddings([vector])
        found = collection.query(query_embeddings=asked, n_results=k, include=["distances"], **among)
        distances = found["distances"]
        assert distances is not None
        return [Scored(UUID(each), 1 - distance) for each, distance in zip(found["ids"][0], distances[0], strict=True)]

    return _known(store, vectors, query, [])


def _search_among(store: _Store, vectors: SetInfo, vector: list[float], k: int, ids: list[str]) -> list[Scored]:
    # Chroma fails at an id that it doesn't have: a vector without length, or one that was just removed.
    none: list[str] = []
    held = _known(store, vectors, lambda collection: collection.get(ids=ids, include=[])["ids"], none)
    return _search(store, vectors, vector, min(k, len(held)), {"ids": held}) if held else []


def _drop(store: _Store, vectors: SetInfo) -> None:
    store.forget(vectors)
    try:
        store.client.delete_collection(_name(vectors))
    except NotFoundError:
        return


def _count(store: _Store, vectors: SetInfo) -> int:
    return _known(store, vectors, lambda collection: collection.count(), 0)


class _Threads:
    """A call that nobody waits for any more holds its thread to its end: so many may be open, and no more."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="chain-chroma")
        self._lock = Lock()
        self._open = 0

    async def run(self, call: Callable[[], T]) -> T:
        with self._lock:
            if self._open >= _MOST:
                raise StoreUnavailable("The vector store has too much to do; try again shortly.")
            self._open += 1
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._counted, call)

    def _counted(self, call: Callable[[], T]) -> T:
        try:
            return call()
        finally:
            with self._lock:
                self._open -= 1


@cache
def _threads() -> _Threads:
    return _Threads()
