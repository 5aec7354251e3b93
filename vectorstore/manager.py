"""VectorStoreManager: a workspace's documents, added, found and removed, whatever backend holds their vectors."""

import asyncio
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from kernel.conf import config as settings
from kernel.errors import Invalid, TooLarge
from kernel.text import storable
from llm.embeddings.embedder import Embedder, embedder_of
from llm.embeddings.embedder import embedder as configured_embedder
from vectorstore import rows
from vectorstore.backends import Backend, backend
from vectorstore.errors import EmbeddingMismatch
from vectorstore.scope import TRUSTED, Scope
from vectorstore.values import CollectionInfo, Draft, Hit, Ingested, Piece, Scored, SetInfo, SourceDocument, Space

if TYPE_CHECKING:
    from vectorstore.langchain import ManagerRetriever

MAX_K = 50
_LONGEST_SOURCE = 1000
_LONGEST_TITLE = 500


class VectorStoreManager:
    """Everything it does stays in one workspace, and in the collections that its reader may read.

    manager = VectorStoreManager(workspace.id)
    await manager.ingest([SourceDocument(source="manual.md", text=text, markdown=True)])
    hits = await manager.search("How long is the warranty?", k=4)
    """

    def __init__(self, workspace_id: UUID, *, embedder: Embedder | None = None) -> None:
        """For work of our own, which reads every collection; `for_reader` is for work on somebody's behalf."""
        self._scope = Scope(workspace_id, TRUSTED)
        self._given = embedder

    @classmethod
    def for_reader(cls, workspace_id: UUID, user_id: int | None) -> Self:
        """A manager that knows the collections which this person may read; None: those that every member may."""
        made = cls(workspace_id)
        made._scope = Scope(workspace_id, user_id)
        return made

    async def collection(self, name: str | None = None) -> CollectionInfo:
        """The collection of that name (None: the default one), made if there is none.

        Raises EmbeddingMismatch if its vectors come from a model that the settings don't name, and NotFound if the
        reader may not read it.
        """
        found = await self._scope.run(rows.collection, _named(name), create=self._new())
        if found is None:
            raise Invalid("There is such a collection, but not among yours; choose another name.")
        self._embedder(found, found.active)
        return found

    @property
    def scope(self) -> Scope:
        """Whose rows these are."""
        return self._scope

    async def embedding(self, name: str | None = None) -> tuple[CollectionInfo, Embedder]:
        """The collection of that name, as `collection` gives it, and what its active set's vectors are made with."""
        found = await self.collection(name)
        return found, self._embedder(found, found.active)

    def as_retriever(self, **options: Any) -> "ManagerRetriever":
        """A LangChain retriever; `options` are those of `search`."""
        # Imports LangChain: only for those who ask for it.
        from vectorstore.langchain import ManagerRetriever  # noqa: PLC0415

        return ManagerRetriever(manager=self, **options)

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
        found = await self._scope.run(rows.collection, _named(collection))
        if found is None or not query.strip():
            return []
        vector = await self._embedder(found, found.active).query(storable(query))
        scored = await self._backend(found.active).search(found.active, vector, k=k)
        hits = await self._scope.run(_hits, scored)
        return [hit for hit in hits if min_score is None or hit.score >= min_score]

    async def delete(self, document_id: UUID) -> bool:
        """Remove a document with its passages; False if the workspace has none of that id."""
        return await self._scope.run(rows.delete_documents, [document_id]) > 0

    def _new(self) -> tuple[str, Space]:
        """What a new collection's vectors are."""
        made = self._given or configured_embedder()
        return settings().vector_store.backend, Space(model=made.model, dimension=made.dimension)

    def _backend(self, vectors: SetInfo) -> Backend:
        return backend(vectors.backend, self._scope.workspace_id)

    def _embedder(self, found: CollectionInfo, vectors: SetInfo) -> Embedder:
        theirs = vectors.space
        if self._given is not None and (self._given.model, self._given.dimension) == (theirs.model, theirs.dimension):
            return self._given
        known = None if self._given is not None else embedder_of(theirs.model, theirs.dimension)
        if known is None:
            ours = self._given or configured_embedder()
            raise EmbeddingMismatch(
                f"The collection {found.name!r} holds vectors of {theirs.model} ({theirs.dimension} dimensions), but"
                f" the settings name {ours.model} ({ours.dimension}). Set EMBEDDINGS back, add the model to"
                " EMBEDDINGS['MODELS'], or use another collection."
            )
        return known

    async def _ingest(self, into: CollectionInfo, document: SourceDocument) -> Ingested:
        document = _checked(document)
        content_hash = sha256(document.text.encode()).hexdigest()
        known = await self._scope.run(rows.known, into.id, document.source, content_hash)
        if known is not None:
            return known
        return await self._scope.run(rows.replace, into, await self._draft(into, document, content_hash))

    async def _draft(self, into: CollectionInfo, document: SourceDocument, content_hash: str) -> Draft:
        # Imports LangChain's splitters: on first use, not at start-up.
        from vectorstore.splitting import split, title_of  # noqa: PLC0415

        options = settings().vector_store
        passages = await asyncio.to_thread(
            split, document.text, markdown=document.markdown, size=options.chunk_size, overlap=options.chunk_overlap
        )
        title = document.title or (document.markdown and title_of(document.text)) or document.source
        # The title and the headings are embedded too: "the warranty of the X200" often names what the passage doesn't.
        paths = [" > ".join(dict.fromkeys((title, *passage.headings))) for passage in passages]
        texts = [f"{path}\n\n{passage.text}" for path, passage in zip(paths, passages, strict=True)]
        sets = [each for each in (into.active, into.building) if each is not None]
        vectors = {each.id: await self._embedder(into, each).documents(texts) for each in sets}
        pieces = [
            Piece(
                text=passage.text,
                start=passage.start,
                end=passage.end,
                embedded_hash=sha256(text.encode()).hexdigest(),
                vectors={of: made[n] for of, made in vectors.items()},
                metadata={"headings": list(passage.headings)},
            )
            for n, (passage, text) in enumerate(zip(passages, texts, strict=True))
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


_HIT = ("id", "document_id", "document__title", "document__source", "text", "start", "end")


def _hits(scope: Scope, scored: Sequence[Scored]) -> list[Hit]:
    """What a backend found, as the scope may see it: in its order."""
    rows_by_id: dict[UUID, tuple[Any, ...]] = {
        row[0]: row for row in scope.chunks.filter(id__in=[each.chunk_id for each in scored]).values_list(*_HIT)
    }
    names = ("id", "document_id", "title", "source", "text", "start", "end")
    return [
        Hit(score=each.score, **dict(zip(names, rows_by_id[each.chunk_id], strict=True)))
        for each in scored
        if each.chunk_id in rows_by_id
    ]
