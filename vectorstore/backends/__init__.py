"""Where vectors live. A backend is made for one workspace and can't see another's."""

from typing import Protocol
from uuid import UUID

from vectorstore.values import CollectionInfo, Draft, Hit, Ingested, Space


class Backend(Protocol):
    """Made by a factory `create(config)` with `config["workspace_id"]`, registered by register_vector_store."""

    async def collection(self, name: str, *, create: Space | None = None) -> CollectionInfo | None:
        """The collection of that name; a missing one is made if `create` says for which vectors."""

    async def known(self, collection: CollectionInfo, source: str, content_hash: str) -> Ingested | None:
        """What to answer without embedding anything: this text is there already. None: it is to be written."""

    async def replace(self, collection: CollectionInfo, draft: Draft) -> Ingested:
        """Put the document in the place of what its source had before: all of it, or nothing.

        A draft without pieces has no text: nothing takes its place.
        """

    async def search(self, collection: CollectionInfo, vector: list[float], *, k: int) -> list[Hit]:
        """The `k` nearest passages, nearest first."""

    async def delete(self, document_id: UUID) -> bool:
        """Remove a document with its passages; False if there is none of that id."""
