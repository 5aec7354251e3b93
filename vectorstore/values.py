"""What goes into a vector store and what comes out of it. Values: no ORM, no LangChain."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from uuid import UUID


@dataclass(frozen=True, kw_only=True)
class SourceDocument:
    """A text to index. `source` says where it came from and is its identity in a collection."""

    source: str
    text: str
    title: str = ""
    markdown: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Space:
    """Whose vectors a set holds; vectors of two spaces can't be compared."""

    model: str
    dimension: int


@dataclass(frozen=True, kw_only=True)
class SetInfo:
    """A set of vectors. `index` is the state of its approximate index, `none` while searches are exact."""

    id: UUID
    workspace_id: UUID
    collection_id: UUID
    backend: str
    space: Space
    index: str = "none"


@dataclass(frozen=True, kw_only=True)
class SetStats:
    """What a backend holds of a set."""

    vectors: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A chunk's vector on its way into a backend, with what filters ask for."""

    chunk_id: UUID
    document_id: UUID
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
    """A passage with its vectors, one for each set; `metadata` holds the headings that lead to it."""

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


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """What became of a document. `reason` says why it was skipped."""

    source: str
    outcome: Literal["added", "updated", "unchanged", "skipped"]
    document_id: UUID | None = None
    chunks: int = 0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A passage that was found. `score` is the cosine similarity: 1 is the same direction, 0 has nothing in common."""

    id: UUID
    document_id: UUID
    title: str
    source: str
    text: str
    score: float
    start: int
    end: int

    def as_source(self, n: int) -> dict[str, Any]:
        """As the `sources` event has it; `n` is the mark that the answer cites it by."""
        return {
            "id": str(self.id),
            "document_id": str(self.document_id),
            "title": self.title,
            "source": self.source,
            "text": self.text,
            "score": round(self.score, 4),
            "start": self.start,
            "end": self.end,
            "n": n,
        }
