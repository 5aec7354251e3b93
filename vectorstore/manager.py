"""VectorStoreManager: a workspace's documents, added, found and removed, whatever backend holds their vectors."""

import asyncio
from collections.abc import Iterable
from hashlib import sha256
from uuid import UUID

from kernel.conf import config as settings
from kernel.errors import Invalid, TooLarge
from kernel.text import storable
from llm.registry import vector_stores
from vectorstore.backends import Backend
from vectorstore.embeddings.embedder import Embedder
from vectorstore.embeddings.embedder import embedder as configured_embedder
from vectorstore.errors import EmbeddingMismatch
from vectorstore.values import CollectionInfo, Draft, Hit, Ingested, Piece, SourceDocument, Space

MAX_K = 50
_LONGEST_SOURCE = 1000
_LONGEST_TITLE = 500


class VectorStoreManager:
    """Everything it does stays in one workspace.

    manager = VectorStoreManager(workspace.id)
    await manager.ingest([SourceDocument(source="manual.md", text=text, markdown=True)])
    hits = await manager.search("How long is the warranty?", k=4)
    """

    def __init__(self, workspace_id: UUID, *, embedder: Embedder | None = None, backend: Backend | None = None) -> None:
        self._embedder = embedder or configured_embedder()
        self._backend = backend or vector_stores.get(settings().vector_store.backend)({"workspace_id": workspace_id})

    async def collection(self, name: str | None = None) -> CollectionInfo:
        """The collection of that name (None: the default one), made if there is none.

        Raises EmbeddingMismatch if its vectors come from another model than the settings name.
        """
        found = await self._backend.collection(_named(name), create=self._space)
        assert found is not None
        return self._matching(found)

    async def ingest(self, documents: Iterable[SourceDocument], *, collection: str | None = None) -> list[Ingested]:
        """Index documents, each in a transaction of its own; one that is unchanged is not embedded again.

        Raises EmbeddingMismatch before anything is written, Invalid or TooLarge for a document that can't be stored.
        """
        into = await self.collection(collection)
        return [await self._ingest(into, document) for document in documents]

    async def search(
        self, query: str, *, k: int = 4, collection: str | None = None, min_score: float | None = None
    ) -> list[Hit]:
        """The `k` nearest passages, nearest first, those below `min_score` left out; none if there is no collection.

        Raises EmbeddingMismatch, and Invalid unless 1 ≤ k ≤ 50.
        """
        if not 1 <= k <= MAX_K:
            raise Invalid(f"k must be from 1 to {MAX_K}, not {k}.")
        # Looked up first: a workspace without documents should not pay a remote provider for each question.
        found = await self._backend.collection(_named(collection))
        if found is None or not query.strip():
            return []
        self._matching(found)
        hits = await self._backend.search(found, await self._embedder.query(storable(query)), k=k)
        return [hit for hit in hits if min_score is None or hit.score >= min_score]

    async def delete(self, document_id: UUID) -> bool:
        """Remove a document with its passages; False if the workspace has none of that id."""
        return await self._backend.delete(document_id)

    @property
    def _space(self) -> Space:
        return Space(model=self._embedder.model, dimension=self._embedder.dimension)

    def _matching(self, found: CollectionInfo) -> CollectionInfo:
        theirs, ours = found.space, self._space
        if theirs != ours:
            raise EmbeddingMismatch(
                f"The collection {found.name!r} holds vectors of {theirs.model} ({theirs.dimension} dimensions), but"
                f" the settings name {ours.model} ({ours.dimension}). Set EMBEDDINGS back, or use another collection."
            )
        return found

    async def _ingest(self, into: CollectionInfo, document: SourceDocument) -> Ingested:
        document = _checked(document)
        content_hash = sha256(document.text.encode()).hexdigest()
        known = await self._backend.known(into, document.source, content_hash)
        return known or await self._backend.replace(into, await self._draft(document, content_hash))

    async def _draft(self, document: SourceDocument, content_hash: str) -> Draft:
        # Imports LangChain's splitters: on first use, not at start-up.
        from vectorstore.splitting import split, title_of  # noqa: PLC0415

        options = settings().vector_store
        passages = await asyncio.to_thread(
            split, document.text, markdown=document.markdown, size=options.chunk_size, overlap=options.chunk_overlap
        )
        title = document.title or (document.markdown and title_of(document.text)) or document.source
        # The title and the headings are embedded too: "the warranty of the X200" often names what the passage doesn't.
        paths = [" > ".join(dict.fromkeys((title, *passage.headings))) for passage in passages]
        vectors = await self._embedder.documents(
            [f"{path}\n\n{passage.text}" for path, passage in zip(paths, passages, strict=True)]
        )
        pieces = [
            Piece(text=p.text, start=p.start, end=p.end, vector=vector, metadata={"headings": list(p.headings)})
            for p, vector in zip(passages, vectors, strict=True)
        ]
        return Draft(document=document, title=title[:_LONGEST_TITLE], content_hash=content_hash, pieces=pieces)


def _named(collection: str | None) -> str:
    return collection or settings().vector_store.default_collection


def _checked(document: SourceDocument) -> SourceDocument:
    """The document as PostgreSQL can hold it."""
    most = settings().vector_store.max_document_bytes
    source, text = storable(document.source), storable(document.text)
    if not source or len(source) > _LONGEST_SOURCE:
        raise Invalid(f"A document's source has 1 to {_LONGEST_SOURCE} characters; {source[:60]!r} has {len(source)}.")
    if len(text.encode()) > most:
        raise TooLarge(f"{source} has more than {most} bytes; raise VECTOR_STORE['MAX_DOCUMENT_BYTES'] or cut it.")
    return SourceDocument(
        source=source, text=text, title=storable(document.title), markdown=document.markdown, metadata=document.metadata
    )
