"""What goes into a vector store and what comes out of it. Values: no ORM, no LangChain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

#: Characters of what names a document in its collection.
LONGEST_SOURCE = 1000
LONGEST_TITLE = 500
LONGEST_COLLECTION = 200


@dataclass(frozen=True, kw_only=True)
class SourceDocument:
    """A text to index. `source` says where it came from and is its identity in a collection."""

    source: str
    text: str
    title: str = ""
    markdown: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    #: Where its pages begin, in characters; empty: it has none.
    pages: Sequence[int] = ()
    #: The content's own date.
    dated_at: datetime | None = None
    content_type: str = ""
    #: Of the file, in bytes; None: of the text.
    size: int | None = None
    #: SHA-256 of the file's bytes; empty: it was given as text.
    upload_hash: str = ""


@dataclass(frozen=True, kw_only=True)
class Space:
    """Whose vectors a set holds; vectors of two spaces can't be compared."""

    model: str
    dimension: int


@dataclass(frozen=True, kw_only=True)
class SetInfo:
    """A set of vectors. `index` is the state of its approximate index (`index_type`: halfvec or vector)."""

    id: UUID
    workspace_id: UUID
    collection_id: UUID
    backend: str
    space: Space
    index: str = "none"
    index_type: str = ""
    #: Vectors that the index had when it was built.
    index_rows: int = 0


@dataclass(frozen=True, kw_only=True)
class SetStats:
    """What a backend holds of a set."""

    vectors: int


@dataclass(frozen=True, kw_only=True)
class CollectionStats:
    """What a collection holds; its vectors are of `space`, in `backend`."""

    collection_id: UUID
    name: str
    #: How many documents there are in each state; all states are named.
    states: Mapping[str, int]
    chunks: int
    #: Of the documents as they came.
    bytes: int
    #: None: the store that has them didn't answer. More than `chunks`: some that are gone are not removed yet.
    vectors: int | None
    space: Space
    backend: str
    #: The state of its approximate index, and how many vectors that had when it was built.
    index: str = "none"
    index_rows: int = 0

    @property
    def documents(self) -> int:
        return sum(self.states.values())

    @property
    def failed(self) -> int:
        return self.states["failed"]

    @property
    def waiting(self) -> int:
        """Those that are queued or being worked on."""
        return self.documents - self.states["ready"] - self.failed


@dataclass(frozen=True, kw_only=True)
class StoreHealth:
    """Whether a store of vectors answers, after how many seconds; if not, an error's `code` and `message`."""

    backend: str
    ok: bool
    seconds: float
    code: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A chunk's vector on its way into a backend, with what filters ask for."""

    chunk_id: UUID
    vector: list[float]
    metadata: dict[str, Any] = field(default_factory=dict)


class Scored(NamedTuple):
    """A chunk that a backend found; `score` is the cosine similarity."""

    chunk_id: UUID
    score: float


@dataclass(frozen=True, kw_only=True)
class CollectionInfo:
    """A collection with the set that searches ask, and the one that is being filled to take its place."""

    id: UUID
    workspace_id: UUID
    name: str
    language: str
    active: SetInfo
    building: SetInfo | None = None


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A passage with its vectors, one for each set; `metadata` holds the headings that lead to it, and its page."""

    id: UUID
    text: str
    start: int
    end: int
    #: SHA-256 of what was embedded.
    embedded_hash: str
    #: By the set's id.
    vectors: dict[UUID, list[float]]
    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A document that is ready to be written: cut and embedded."""

    document: SourceDocument
    title: str
    content_hash: str
    pieces: list[Piece]
    #: Rows of Garbage that stand for vectors outside PostgreSQL until the pieces are written.
    left_over: list[UUID] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """What became of a document. `reason` says why it was skipped."""

    source: str
    outcome: Literal["added", "updated", "unchanged", "skipped"]
    document_id: UUID | None = None
    chunks: int = 0
    reason: str = ""


Mode = Literal["vector", "text", "hybrid"]


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What to look for, where and how; vectorstore.searching says what is allowed."""

    query: str
    k: int = 4
    mode: Mode = "vector"
    #: Its name, or its id; None: the default one.
    collection: str | UUID | None = None
    #: A filter as vectorstore.filters.parse takes it.
    where: Mapping[str, Any] | None = None
    #: Only passages of these documents; empty: of all.
    documents: Sequence[UUID] = ()
    #: vector: the least similarity. text: the least rank. hybrid: the least similarity, unless it has every word.
    min_score: float | None = None
    #: Maximal marginal relevance: 1 is relevance alone, towards 0 hits resemble each other less.
    mmr: float | None = None
    #: Half-life in days: what is older counts less.
    decay: float | None = None
    #: The name of a registered reranker; empty: none.
    rerank: str = ""
    #: Chunks before and after each hit, given as its `neighbours`.
    neighbours: int = 0


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Characters `start` to `end` of a document's text."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A passage that was found. `score` is what the hits are in order of, the highest first:

    vector: the cosine similarity (1 is the same direction, 0 has nothing in common). text: the rank, 0 to 1. hybrid:
    the two rankings fused, 1 is the first in both. With a decay or a reranker: what those made of it.
    """

    id: UUID
    document_id: UUID
    title: str
    source: str
    text: str
    score: float
    start: int
    end: int
    collection_id: UUID | None = None
    #: The collection's name.
    collection: str = ""
    #: Its number among the document's chunks, from 0.
    position: int = 0
    #: The document's metadata and the chunk's own (`headings`, `page`).
    metadata: dict[str, Any] = field(default_factory=dict)
    #: The cosine similarity to the question, where it was compared.
    similarity: float | None = None
    #: The document's own date, or when it was added.
    dated_at: datetime | None = None
    #: The hit with the chunks around it, if they were asked for.
    neighbours: Passage | None = None

    @property
    def page(self) -> int | None:
        """The page it begins on, from 1, in documents that have pages."""
        page = self.metadata.get("page")
        return page if isinstance(page, int) else None

    def as_source(self, n: int) -> dict[str, Any]:
        """As the `sources` event has it, with its neighbours; `n` is the mark that the answer cites it by."""
        whole = self.neighbours or self
        return {
            "id": str(self.id),
            "document_id": str(self.document_id),
            "title": self.title,
            "source": self.source,
            "text": whole.text,
            "score": round(self.score, 4),
            "start": whole.start,
            "end": whole.end,
            "n": n,
        }

    def as_json(self) -> dict[str, Any]:
        """As REST and the command line give it."""
        around = self.neighbours
        return {
            "id": str(self.id),
            "document_id": str(self.document_id),
            "collection_id": str(self.collection_id),
            "collection": self.collection,
            "title": self.title,
            "source": self.source,
            "text": self.text,
            "start": self.start,
            "end": self.end,
            "position": self.position,
            "page": self.page,
            "score": round(self.score, 4),
            "similarity": None if self.similarity is None else round(self.similarity, 4),
            "metadata": self.metadata,
            "dated_at": None if self.dated_at is None else self.dated_at.isoformat(),
            "neighbours": around and {"text": around.text, "start": around.start, "end": around.end},
        }
