"""Where vectors live. PostgreSQL keeps the documents, the chunks and who may read them; a backend keeps vectors by the
ids of chunks, and finds the nearest. What it finds is looked up in PostgreSQL before anybody sees it: a vector that is
left over, or another workspace's, finds nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable
from uuid import UUID

from kernel.conf import config as settings
from llm.registry import vector_stores
from vectorstore.errors import EmbeddingMismatch
from vectorstore.filters import Filter
from vectorstore.values import Entry, Scored, SetInfo, SetStats

T = TypeVar("T")


class Backend(Protocol):
    """Made by a factory `create(config)`, registered by register_vector_store; `config` holds `workspace_id`, and
    `options` of VECTOR_STORE["OPTIONS"]. Made anew for each use: what is costly it shares within the process.

    Raises StoreUnavailable when it can't be reached, Misconfigured when it is set up wrongly.
    """

    #: Vectors are rows of our own database: they are written and removed in the transactions of their chunks, and
    #: `add` and `remove` are only asked for sets that are being filled.
    beside_rows: ClassVar[bool]

    async def add(self, vectors: SetInfo, entries: Sequence[Entry]) -> None:
        """Keep these vectors; one of a known id takes the place of what it had.

        Raises EmbeddingMismatch before anything is written; see `fitting`.
        """

    async def remove(self, vectors: SetInfo, chunk_ids: Sequence[UUID]) -> None:
        """Remove those of these ids; unknown ones are no error."""

    async def search(
        self, vectors: SetInfo, vector: Sequence[float], *, k: int, where: Filter | None = None
    ) -> list[Scored]:
        """The `k` nearest, nearest first; a vector without length is near to none.

        `where` is over entries' metadata, and given to a `Filtering` backend only. What it can't express of a filter it
        leaves out: the filter is applied again to what is looked up.
        """

    async def drop(self, vectors: SetInfo) -> None:
        """Remove the whole set; an unknown one is no error."""

    async def stats(self, vectors: SetInfo) -> SetStats:
        """What it holds of the set."""

    async def health(self) -> None:
        """Raises what is wrong, if anything is."""


def backend(name: str, workspace_id: UUID) -> Backend:
    """The backend of that name for a workspace's sets. Raises Misconfigured: no such name, package or option."""
    options = settings().vector_store.options.get(name, {})
    made: Backend = vector_stores.get(name)({"workspace_id": workspace_id, "options": options})
    return made


@runtime_checkable
class Filtering(Protocol):
    """A backend that filters by the metadata of its entries, and so must be told when that changes."""

    async def describe(self, vectors: SetInfo, metadata: Mapping[UUID, Mapping[str, Any]]) -> None:
        """Keep this as the chunks' metadata; an unknown id is no error, and stays unknown."""


@runtime_checkable
class Picking(Protocol):
    """A backend that can be asked for the nearest of some chunks."""

    async def search_among(
        self, vectors: SetInfo, vector: Sequence[float], chunk_ids: Sequence[UUID], *, k: int
    ) -> list[Scored]:
        """As `search`, of these alone; unknown ones are no error. They are a thousand at most."""


def fitting(vectors: SetInfo, entries: Sequence[Entry]) -> None:
    """Raises EmbeddingMismatch unless all have the length of the set's vectors."""
    expected = vectors.space.dimension
    wrong = next((len(entry.vector) for entry in entries if len(entry.vector) != expected), None)
    if wrong is not None:
        raise EmbeddingMismatch(
            f"The set holds vectors of {vectors.space.model} with {expected} dimensions; one of {wrong} came."
        )


def has_length(vector: Sequence[float]) -> bool:
    """Whether the cosine similarity with it is defined: the vector of a text without words may be all zeros."""
    return any(vector)


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in groups of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))
