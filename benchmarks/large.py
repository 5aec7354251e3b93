"""Large collections, loaded with COPY: as many passages as a company has, with vectors that lie as those of texts do.

A real model's vectors fill no sphere: passages are about topics, in a topic about things, and differ from each other in
a few ways. So is this: each vector is its thing's, moved in a dozen directions that its topic has, and a little in all.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from time import perf_counter
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from benchmarks.report import progress
from benchmarks.stage import Stage
from benchmarks.tales import DATA, tales

DIMENSION = 384
MODEL = "fake:benchmark"
#: One in a hundred passages is about each topic; a topic has so many things.
_TOPICS, _THINGS, _WAYS = 100, 20, 12
_PER_DOCUMENT = 50
_WORDS = 40
#: Languages: each is half of the passages. Years: each is one in a hundred. Neither has to do with the topic.
_LANGUAGES, _YEARS = ("en", "de"), 100


@dataclass(frozen=True)
class Loaded:
    """A collection, what it holds, and questions about it. Rows of `vectors` are the passages `ids`."""

    name: str
    collection_id: UUID
    set_id: UUID
    ids: list[UUID]
    vectors: np.ndarray
    topics: np.ndarray
    languages: np.ndarray
    years: np.ndarray

    def metadata(self, place: int) -> dict[str, Any]:
        language, year = _LANGUAGES[self.languages[place]], int(self.years[place])
        return {"language": language, "year": year, "topic": int(self.topics[place])}

    def exact(self, question: np.ndarray, *, k: int, among: np.ndarray | None = None) -> set[UUID]:
        """The `k` passages that are nearest by cosine; `among` says which count."""
        similar = self.vectors @ question
        if among is not None:
            similar = np.where(among, similar, -2)
        return {self.ids[place] for place in np.argpartition(-similar, k)[:k]}


@dataclass
class World:
    """Where vectors come from: the same for every collection, and for questions."""

    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(11))

    def __post_init__(self) -> None:
        topics = self._spread(_TOPICS, DIMENSION)
        self.things = topics[:, None, :] + 0.7 * self._spread(_TOPICS, _THINGS, DIMENSION)
        self.ways = self._spread(_TOPICS, _WAYS, DIMENSION)

    def draw(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors, and the topic of each."""
        topics, things = self.random.integers(_TOPICS, size=count), self.random.integers(_THINGS, size=count)
        moved = np.einsum("nw,nwd->nd", self.random.normal(size=(count, _WAYS)) / _WAYS**0.5, self.ways[topics])
        found = self.things[topics, things] + 0.7 * moved + 0.2 * self._spread(count, DIMENSION)
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32), topics

    def _spread(self, *shape: int) -> np.ndarray:
        """Directions of length 1, more or less."""
        return (self.random.normal(size=shape) / DIMENSION**0.5).astype(np.float32)


class Given:
    """An embedding model that has been asked already: a search of its questions costs the search alone."""

    model, dimension = MODEL, DIMENSION

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self._vectors = vectors

    async def query(self, text: str) -> list[float]:
        return self._vectors[text].tolist()  # type: ignore[no-any-return]  # numpy knows no type of its lists


@dataclass(frozen=True)
class Table:
    """All passages of the table: half are in `whole`, which has an index, one in a hundred in `small`."""

    whole: Loaded
    small: Loaded
    rest: Loaded
    world: World

    def questions(self, count: int) -> dict[str, np.ndarray]:
        """Questions in words, and their vectors: near to what is there, as people ask."""
        asked = json.loads((DATA / "questions.json").read_text())
        words = [asked[place % len(asked)]["question"] for place in range(count)]
        vectors, _ = self.world.draw(count)
        return {f"{text} ({place})": vector for place, (text, vector) in enumerate(zip(words, vectors, strict=True))}


@cache
def table(stage: Stage, passages: int) -> Table:
    """Loaded once a run: `passages` in `whole`, as many in the others."""
    world, small = World(), passages // 50
    whole = _load(stage, "whole", passages, world)
    rest = _load(stage, "rest", passages - small, world)
    made = Table(whole, _load(stage, "small", small, world), rest, world)
    vacuum(stage, *(f"vectorstore_{name}" for name in ("document", "chunk", "chunklookup", "chunkvector")))
    progress("vacuumed; building the index")
    begun = perf_counter()
    asyncio.run(_index(whole))
    progress(f"the index of {passages} vectors took {perf_counter() - begun:.0f} s")
    return made


def vacuum(stage: Stage, *tables: str) -> None:
    """What autovacuum does in time: the tables are clean, and the planner knows them."""
    with connect(stage) as connection:
        for table in tables:
            connection.execute(f"VACUUM (ANALYZE) {table}")


def connect(stage: Stage) -> psycopg.Connection[Any]:
    """A connection without the application's time limits."""
    connection = psycopg.connect(stage.postgres.url, autocommit=True)
    register_vector(connection)
    return connection


def index_type(connection: psycopg.Connection[Any], loaded: Loaded) -> str:
    """What its index is over, with the dimension: `halfvec(384)`; for a set without one `vector(384)`."""
    found = connection.execute("SELECT index_type FROM vectorstore_vectorset WHERE id = %s", [loaded.set_id])
    (kind,) = found.fetchone() or ("",)
    return f"{kind or 'vector'}({DIMENSION})"


async def _index(loaded: Loaded) -> None:
    """As a worker builds it."""
    # The project's own: after Django's set-up.
    from vectorstore import indexing

    if (outcome := await indexing.work(loaded.set_id)) != "ready":
        raise RuntimeError(f"The index was not built: {outcome}.")


def _load(stage: Stage, name: str, count: int, world: World) -> Loaded:
    """A new collection of so many passages, with fifty to a document."""
    # The project's own: after Django's set-up.
    from vectorstore.models import Collection, VectorSet

    workspace_id, begun = stage.workspace_id, perf_counter()
    collection = Collection.objects.create(workspace_id=workspace_id, name=name)
    vectors = VectorSet.objects.create(
        workspace_id=workspace_id, collection=collection, embedding_model=MODEL, dimension=DIMENSION
    )
    made = _passages(name, collection.id, vectors.id, count, world)
    with connect(stage) as connection:
        _copy(connection, made, workspace_id, world)
    progress(f"loaded {count} passages into {name} in {perf_counter() - begun:.0f} s")
    return made


def _passages(name: str, collection_id: UUID, set_id: UUID, count: int, world: World) -> Loaded:
    # The project's own: after Django's set-up.
    from kernel.ids import new_id

    vectors, topics = world.draw(count)
    languages, years = world.random.integers(2, size=count), world.random.integers(_YEARS, size=count)
    ids = [new_id() for _ in range(count)]
    return Loaded(name, collection_id, set_id, ids, vectors, topics, languages, years)


def _copy(connection: psycopg.Connection[Any], made: Loaded, workspace_id: UUID, world: World) -> None:
    documents, now = _documents(made, workspace_id), datetime.now(UTC)
    with _no_wall(connection), connection.transaction():
        with connection.cursor().copy(_COPY_CHUNKS) as copy:
            copy.set_types(_CHUNK_TYPES)
            for place, (chunk_id, text) in enumerate(zip(made.ids, _texts(len(made.ids), world), strict=True)):
                document, position = documents[place // _PER_DOCUMENT], place % _PER_DOCUMENT
                whose = (chunk_id, now, now, workspace_id, made.collection_id, document)
                copy.write_row((*whose, position, text, 0, len(text), "", Jsonb(made.metadata(place))))
        connection.execute(_LOOKUP, [made.collection_id])
        with connection.cursor().copy(_COPY_VECTORS) as copy:
            copy.set_types(["uuid", "uuid", "vector"])
            for chunk_id, vector in zip(made.ids, made.vectors, strict=True):
                copy.write_row((made.set_id, chunk_id, vector))


@contextmanager
def _no_wall(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """COPY can't write through row security, which whoever owns the table may step over."""
    connection.execute("ALTER TABLE vectorstore_chunk NO FORCE ROW LEVEL SECURITY")
    try:
        yield
    finally:
        connection.execute("ALTER TABLE vectorstore_chunk FORCE ROW LEVEL SECURITY")


def _documents(made: Loaded, workspace_id: UUID) -> list[UUID]:
    # The project's own: after Django's set-up.
    from vectorstore.models import Document, DocumentState

    rows = [
        Document(
            workspace_id=workspace_id,
            collection_id=made.collection_id,
            title=f"Document {number}",
            source=f"{made.name}/{number}.txt",
            state=DocumentState.READY,
            chunk_count=min(_PER_DOCUMENT, len(made.ids) - number * _PER_DOCUMENT),
        )
        for number in range(-(-len(made.ids) // _PER_DOCUMENT))
    ]
    Document.objects.bulk_create(rows, batch_size=500)
    return [row.id for row in rows]


def _texts(count: int, world: World) -> Iterator[str]:
    """Two pieces of the tales each, so that words are as common and as rare as they are in English."""
    words = " ".join(tale.text for tale in tales()).split()
    for first, second in world.random.integers(len(words) - _WORDS, size=(count, 2)):
        yield " ".join(words[first : first + _WORDS // 2] + words[second : second + _WORDS // 2])


_COPY_CHUNKS = """
    COPY vectorstore_chunk
        (id, created_at, updated_at, workspace_id, collection_id, document_id, position, text, start, "end",
        embedded_hash, metadata)
    FROM STDIN (FORMAT BINARY)
"""
_CHUNK_TYPES = [
    "uuid",
    "timestamptz",
    "timestamptz",
    "uuid",
    "uuid",
    "uuid",
    "int4",
    "text",
    "int4",
    "int4",
    "varchar",
    "jsonb",
]
#: As vectorstore.rows writes it, without headings.
_LOOKUP = """
    INSERT INTO vectorstore_chunklookup (chunk_id, workspace_id, collection_id, document_id, terms, metadata)
    SELECT id, workspace_id, collection_id, document_id, setweight(to_tsvector('english', text), 'D'), metadata
    FROM vectorstore_chunk WHERE collection_id = %s
"""
_COPY_VECTORS = "COPY vectorstore_chunkvector (vector_set_id, chunk_id, embedding) FROM STDIN (FORMAT BINARY)"
