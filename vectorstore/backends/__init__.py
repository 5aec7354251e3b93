"""Where vectors live. PostgreSQL keeps the documents, the chunks and who may read them; a backend keeps vectors by the
ids of chunks, and finds the nearest. What it finds is looked up in PostgreSQL before anybody sees it: a vector that is
left over, or another workspace's, finds nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol
from uuid import UUID

from vectorstore.values import Entry, Scored, SetInfo, SetStats


class Backend(Protocol):
    """Made by a factory `create(config)` with `config["workspace_id"]`, registered by register_vector_store.

    Raises StoreUnavailable when it can't be reached, Misconfigured when it is set up wrongly.
    """

    #: Vectors are rows of our own database: they are written and removed in the transactions of their chunks, and
    #: `add` and `remove` are only asked for sets that are being filled.
    beside_rows: ClassVar[bool]

    async def add(self, vectors: SetInfo, entries: Sequence[Entry]) -> None:
        """Keep these vectors; one of a known id takes the place of what it had."""

    async def remove(self, vectors: SetInfo, chunk_ids: Sequence[UUID]) -> None:
        """Remove those of these ids; unknown ones are no error."""

    async def search(
        self, vectors: SetInfo, vector: Sequence[float], *, k: int, where: Mapping[str, Any] | None = None
    ) -> list[Scored]:
        """The `k` nearest, nearest first. `where` is a filter of vectorstore.filters over the entries' metadata.

        A backend that can't express a filter may leave it out: it is applied again to what is looked up.
        """

    async def drop(self, vectors: SetInfo) -> None:
        """Remove the whole set; an unknown one is no error."""

    async def stats(self, vectors: SetInfo) -> SetStats:
        """What it holds of the set."""

    async def health(self) -> None:
        """Raises what is wrong, if anything is."""
