"""VectorStoreManager: a workspace's documents, added, found and removed, whatever backend holds their vectors."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from django.db import IntegrityError
from django.utils import timezone

from kernel import caches, database, jobs
from kernel.conf import config as settings
from kernel.errors import ChainError, DatabaseUnavailable, Invalid, NotFound, TooLarge
from kernel.text import storable
from llm.embeddings.embedder import Embedder
from llm.embeddings.embedder import embedder as configured_embedder
from vectorstore import claims, drafting, figures, indexing, outside, ranking, rows, searching
from vectorstore.backends import Backend, backend
from vectorstore.candidates import Narrowing, none_near
from vectorstore.claims import Submitted
from vectorstore.scope import TRUSTED, Scope
from vectorstore.searching import Plan
from vectorstore.values import (
    LONGEST_COLLECTION,
    LONGEST_SOURCE,
    CollectionInfo,
    CollectionStats,
    Hit,
    Ingested,
    SearchRequest,
    SetInfo,
    SourceDocument,
    Space,
    StoreHealth,
)

_MOST_COLLECTIONS = 1000
#: Collections as searches found them, by the workspace, the reader and how they were named. A search's statement finds
#: nothing in one that has changed since, or that the reader may no longer read, and it is looked up again.
_seen: caches.Cache[tuple[UUID, object, str | UUID], CollectionInfo] = caches.Cache("collections", 1000)

if TYPE_CHECKING:
    from vectorstore.langchain import ManagerRetriever


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

    async def collection(self, name: str | UUID | None = None) -> CollectionInfo:
        """The collection of that name (None: the default one), made if there is none; or the one of that id.

        Raises EmbeddingMismatch if its vectors come from a model that the settings don't name, and NotFound if the
        reader may not read it.
        """
        if isinstance(name, UUID):
            found = await self._scope.run(searching.collection, name)
        else:
            found = await self._scope.run(rows.collection, _named(name), create=self._new())
        if found is None and isinstance(name, UUID):
            raise NotFound("There is no such collection among yours.")
        if found is None:
            raise NotFound("There is no such collection among yours, and its name can't be used; choose another one.")
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

    async def search(self, query: str | SearchRequest, *, must_exist: bool = False, **options: Any) -> list[Hit]:
        """The hits of a SearchRequest, or of its fields by keyword: at most `k`, best first.

        None if there is no such collection among the reader's; with `must_exist` that is NotFound. Raises Invalid for
        what can't be asked, EmbeddingMismatch, and what the collection's backend raises.
        """
        request = searching.checked(query, **options)
        which = searching.narrowing(request)
        named = request.collection if isinstance(request.collection, UUID) else _named(request.collection)
        who = (self._scope.workspace_id, self._scope.reader, named)
        known = _seen.get(who)
        failed: ChainError | None = None
        if known and request.query:
            try:
                if hits := await self._hits(known, request, which):
                    return hits
            except DatabaseUnavailable:
                raise
            except ChainError as error:  # perhaps of a model or a set that it has no more
                failed = error
        # Looked up first: a workspace without documents should not pay a remote provider for each question.
        found = await self._scope.run(searching.collection, named)
        if found is not None and found.active.backend == rows.BESIDE:
            _seen.put(who, found)
        else:
            _seen.drop(who)
        if found is None and must_exist:
            raise NotFound("There is no such collection.")
        if found is None or not request.query:
            return []
        if found != known:
            return await self._hits(found, request, which)
        if failed:
            raise failed
        return []

    async def submit(self, *, collection: str | UUID | None = None, tell: bool = True, **upload: Any) -> Submitted:
        """Take in a file's bytes (`content`) or a `url` under its `source`: workers read, cut and embed it.

        Takes what vectorstore.claims.submit takes. Returns with the commit; `tell` a broker of it at once. A missing
        collection is made where it was named; by its id it is the same one, also after somebody has renamed it.
        Raises EmbeddingMismatch, NotFound, and Invalid or TooLarge for what can't be taken in.
        """
        into = await self.collection(collection)
        upload = {name: storable(value) if isinstance(value, str) else value for name, value in upload.items()}
        _check_source(upload["source"])
        content = upload.get("content")
        most = settings().vector_store.max_document_bytes
        if content is not None and len(content) > most:
            raise TooLarge(f"{upload['source']} has more than {most} bytes; raise MAX_DOCUMENT_BYTES or split it.")
        try:
            made = await self._scope.run(claims.submit, into, told=tell, **upload)
        except IntegrityError as error:
            # A row of a collection that was deleted since it was looked up.
            raise NotFound("The collection was deleted meanwhile.") from error
        if tell:
            await _tell(made)
        return made

    async def retry(self, document_id: UUID) -> Submitted:
        """Try a failed document again. Raises NotFound for one that has not failed, and for another's."""
        made = await self._scope.run(claims.retry, document_id)
        await _tell(made)
        return made

    async def delete(self, document_id: UUID) -> bool:
        """Remove a document with its passages; False if the workspace has none of that id."""
        return await self._scope.run(rows.delete_documents, [document_id]) > 0

    async def collections(self) -> list[CollectionInfo]:
        """The reader's collections by their names, the first 1000."""
        return await self._scope.run(figures.collections, limit=_MOST_COLLECTIONS)

    async def stats(self, collection: str | None = None) -> list[CollectionStats]:
        """What each of the reader's collections holds, or the one of that name; NotFound if there is none.

        A store that doesn't answer within seconds leaves its `vectors` unknown.
        """

        def look(scope: Scope) -> tuple[list[CollectionInfo], list[CollectionStats]]:
            found = figures.collections(scope, name=collection, limit=_MOST_COLLECTIONS)
            return found, figures.held(scope, found)

        found, held = await self._scope.run(look)
        if collection is not None and not found:
            raise NotFound("There is no such collection.")
        return await figures.with_vectors(found, held)

    async def health(self) -> list[StoreHealth]:
        """Whether the stores answer that hold the vectors of the reader's collections, and the one for new ones.

        Takes a few seconds at most, and raises nothing but DatabaseUnavailable: what is wrong is told.
        """
        names = await self._scope.run(figures.stores)
        return list(await asyncio.gather(*(figures.health(name, self._scope.workspace_id) for name in names)))

    async def _hits(self, found: CollectionInfo, request: SearchRequest, which: Narrowing) -> list[Hit]:
        plan = await self._plan(found, request, which)
        return await self._finished(plan, await searching.hits(self._scope, plan))

    async def _plan(self, found: CollectionInfo, request: SearchRequest, which: Narrowing) -> Plan:
        if request.mode == "text":
            return Plan(collection=found, request=request, narrowing=which, near=none_near())
        vector = await self._embedder(found, found.active).query(request.query)
        if found.active.backend == rows.BESIDE:
            near = searching.nearest(found, request, which, vector)
            return Plan(collection=found, request=request, narrowing=which, near=near, vector=vector)
        store, wanted = self._backend(found.active), searching.depth(request)
        scored = await outside.nearest(self._scope, store, found, which, vector, wanted=wanted)
        near = searching.given(request, which, scored)
        return Plan(collection=found, request=request, narrowing=which, near=near)

    async def _finished(self, plan: Plan, hits: list[Hit]) -> list[Hit]:
        request = plan.request
        if request.rerank and hits:
            hits = await ranking.reranked(request.rerank, request.query, hits)
        if request.decay is not None:
            hits = ranking.decayed(hits, half_life=request.decay, now=timezone.now())
        if request.mmr is not None:
            vectors = await self._vectors(plan.collection, hits)
            hits = ranking.diverse(hits, vectors, k=request.k, relevance=request.mmr)
        hits = hits[: request.k]
        if request.neighbours:
            hits = await self._scope.run(searching.with_neighbours, hits, request.neighbours)
        return hits

    async def _vectors(self, found: CollectionInfo, hits: Sequence[Hit]) -> list[list[float]]:
        """The hits' vectors; stores outside PostgreSQL keep theirs to themselves, so the texts are embedded again."""
        if found.active.backend != rows.BESIDE:
            return await self._embedder(found, found.active).documents([hit.text for hit in hits])
        known = await self._scope.run(searching.vectors, found.active, [hit.id for hit in hits])
        return [known.get(hit.id, [0.0] * found.active.space.dimension) for hit in hits]

    def _new(self) -> tuple[str, Space]:
        """What a new collection's vectors are."""
        made = self._given or configured_embedder()
        return settings().vector_store.backend, Space(model=made.model, dimension=made.dimension)

    def _backend(self, vectors: SetInfo) -> Backend:
        return backend(vectors.backend, self._scope.workspace_id)

    def _embedder(self, found: CollectionInfo, vectors: SetInfo) -> Embedder:
        given, theirs = self._given, vectors.space
        if given is None:
            return drafting.embedder_for(found, vectors)
        if (given.model, given.dimension) != (theirs.model, theirs.dimension):
            raise drafting.mismatch(found.name, theirs, given)
        return given

    async def _ingest(self, into: CollectionInfo, document: SourceDocument) -> Ingested:
        document = _checked(document)
        content_hash = sha256(document.text.encode()).hexdigest()
        known = await self._scope.run(rows.known, into, document, content_hash)
        if known is not None:
            return known
        made = await drafting.draft(self._scope, into, document, embedder_of=self._embedder)
        written = await self._scope.run(rows.replace, into, made)
        await indexing.grown(into.active)
        return written


def _named(collection: str | None) -> str:
    """Raises Invalid for what no collection can be called."""
    name = storable(collection or "") or settings().vector_store.default_collection
    if not name.strip() or len(name) > LONGEST_COLLECTION:
        raise Invalid(f"A collection's name has 1 to {LONGEST_COLLECTION} characters.")
    return name


def _check_source(source: str) -> None:
    if not source or len(source) > LONGEST_SOURCE:
        raise Invalid(f"A document's source has 1 to {LONGEST_SOURCE} characters; {source[:60]!r} has {len(source)}.")


async def _tell(made: Submitted) -> None:
    """Tell a broker, in a thread: it may be slow to answer. What it misses a sweep finds.

    Nothing is written after the word is out: its worker may have begun.
    """
    if made.job_id is None or made.outcome != "queued":
        return
    if not await asyncio.to_thread(jobs.tell, "vectorstore.tasks.ingest_document", made.job_id):
        await database.run(claims.untold, made.job_id)


def _checked(document: SourceDocument) -> SourceDocument:
    """The document as PostgreSQL can hold it."""
    most = settings().vector_store.max_document_bytes
    source, text = storable(document.source), storable(document.text)
    _check_source(source)
    if len(text.encode()) > most:
        raise TooLarge(f"{source} has more than {most} bytes; raise VECTOR_STORE['MAX_DOCUMENT_BYTES'] or cut it.")
    return replace(document, source=source, text=text, title=storable(document.title))
