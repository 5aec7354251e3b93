"""A collection as LangChain's VectorStore and BaseRetriever, for people who compose chains of their own with it.

Imported only by those who ask for it. Sync methods run an event loop of their own; inside one, use the async ones.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID, uuid4

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from numpy import array
from pydantic import ConfigDict
from typing_extensions import override

from kernel.errors import Invalid
from llm.runnable import in_a_loop
from vectorstore.backends import backend
from vectorstore.filters import Filter, parse
from vectorstore.manager import VectorStoreManager
from vectorstore.scope import Scope
from vectorstore.searching import MAX_K
from vectorstore.values import CollectionInfo, Hit, Scored, SourceDocument

_LONGEST_TITLE = 80


def as_vectorstore(manager: VectorStoreManager, *, collection: str | None = None) -> "CollectionStore":
    """The collection of that name (None: the default one) as LangChain's VectorStore; made when first used."""
    return CollectionStore(manager, collection=collection)


class CollectionStore(VectorStore):
    """Documents by their `source`, which is LangChain's id. A long document is cut: a search gives its passages.

    `filter` of the searches is a filter of ours (vectorstore.filters). A text that the collection holds already, under
    another id, is kept once: the id that is returned for it is the one that it is known by.
    """

    def __init__(self, manager: VectorStoreManager, *, collection: str | None = None) -> None:
        self._manager = manager
        self._collection = collection

    @property
    @override
    def embeddings(self) -> "CollectionEmbeddings":
        return CollectionEmbeddings(self._manager, self._collection)

    @classmethod
    @override
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> "CollectionStore":
        """`manager` and `collection` say where to; `embedding` is None: the collection has a model of its own."""
        made = cls._of(embedding, kwargs)
        made.add_texts(texts, metadatas, ids=ids)
        return made

    @classmethod
    @override
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> "CollectionStore":
        made = cls._of(embedding, kwargs)
        await made.aadd_texts(texts, metadatas, ids=ids)
        return made

    @classmethod
    def _of(cls, embedding: Embeddings | None, options: dict[str, Any]) -> "CollectionStore":
        if not isinstance(options.get("manager"), VectorStoreManager):
            raise Invalid("Say whose documents they are: manager=VectorStoreManager(workspace_id).")
        if embedding is not None and not isinstance(embedding, CollectionEmbeddings):
            raise Invalid("A collection's model is set by EMBEDDINGS; give embedding=None.")
        return cls(options["manager"], collection=options.get("collection"))

    @override
    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        return in_a_loop(self.aadd_texts(texts, metadatas, ids=ids, **kwargs))

    @override
    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """A known id's document is replaced. Raises Invalid if there are not as many ids or metadatas as texts."""
        documents = _documents(list(texts), metadatas, ids)
        results = await self._manager.ingest(documents, collection=self._collection)
        copies = {each.document_id for each in results if each.outcome == "skipped" and each.document_id is not None}
        known = await self._manager.scope.run(_sources, copies) if copies else {}
        return [known.get(each.document_id, each.source) for each in results]

    @override
    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        return in_a_loop(self.adelete(ids, **kwargs))

    @override
    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        if ids is None:
            raise Invalid("Name the ids of the documents to delete.")
        found = await self._manager.collection(self._collection)
        for document_id in await self._manager.scope.run(_ids, found.id, ids):
            await self._manager.delete(document_id)
        return True

    @override
    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        return in_a_loop(self.aget_by_ids(ids))

    @override
    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Whole documents, in the order of the ids; unknown ones are left out."""
        found = await self._manager.collection(self._collection)
        return await self._manager.scope.run(_whole, found.id, ids)

    @override
    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return in_a_loop(self.asimilarity_search(query, k, **kwargs))

    @override
    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    @override
    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        return in_a_loop(self.asimilarity_search_with_score(query, k, **kwargs))

    @override
    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, *, filter: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The score is a hit's: cosine similarity, the highest first. `kwargs` are options of the manager's search."""
        if filter is not None:
            kwargs["where"] = filter
        hits = await self._manager.search(query, k=k, collection=self._collection, **kwargs)
        return await self._manager.scope.run(_passages, hits)

    @override
    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        return in_a_loop(self.asimilarity_search_by_vector(embedding, k, **kwargs))

    @override
    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Document]:
        found = await self._manager.collection(self._collection)
        return await self._nearest(found, embedding, k, None if filter is None else parse(filter))

    @override
    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        return in_a_loop(self.amax_marginal_relevance_search(query, k, fetch_k, lambda_mult, **kwargs))

    @override
    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        vector = await self.embeddings.aembed_query(query)
        return await self.amax_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    @override
    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        return in_a_loop(self.amax_marginal_relevance_search_by_vector(embedding, k, fetch_k, lambda_mult, **kwargs))

    @override
    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Stores don't give vectors back: those of the `fetch_k` nearest passages are made once more."""
        documents = await self.asimilarity_search_by_vector(embedding, min(max(k, fetch_k), MAX_K), **kwargs)
        if not documents:
            return []
        vectors = await self.embeddings.aembed_documents([each.page_content for each in documents])
        chosen = maximal_marginal_relevance(array(embedding), vectors, lambda_mult=lambda_mult, k=k)
        return [documents[n] for n in chosen]

    @override
    def _select_relevance_score_fn(self) -> Any:
        return lambda similarity: max(0.0, min(1.0, similarity))

    async def _nearest(
        self, found: CollectionInfo, vector: list[float], k: int, where: Filter | None
    ) -> list[Document]:
        if not 1 <= k <= MAX_K:
            raise Invalid(f"k must be from 1 to {MAX_K}, not {k}.")
        scope = self._manager.scope
        store = backend(found.active.backend, scope.workspace_id)
        # A store may find vectors whose chunks are gone, and what a filter leaves out: then it is asked for more.
        for asked in (k, 4 * k, 16 * k):
            scored = await store.search(found.active, vector, k=asked, where=where)
            documents = await scope.run(_seen, scored, where)
            if len(documents) >= k or len(scored) < asked:
                break
        return documents[:k]


class CollectionEmbeddings(Embeddings):
    """The model of a collection's vectors."""

    def __init__(self, manager: VectorStoreManager, collection: str | None) -> None:
        self._manager = manager
        self._collection = collection

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return in_a_loop(self.aembed_documents(texts))

    @override
    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        _, embedder = await self._manager.embedding(self._collection)
        return await embedder.documents(texts)

    @override
    def embed_query(self, text: str) -> list[float]:
        return in_a_loop(self.aembed_query(text))

    @override
    async def aembed_query(self, text: str) -> list[float]:
        _, embedder = await self._manager.embedding(self._collection)
        return await embedder.query(text)


class ManagerRetriever(BaseRetriever):
    """What `VectorStoreManager.search` finds; fields besides `manager` are its options.

    A document's id is the passage's, and its metadata hold the document's own and `title`, `source`, `document_id`,
    `score`, `start` and `end`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="allow")

    manager: VectorStoreManager
    k: int = 4
    collection: str | None = None

    @override
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        return in_a_loop(self._found(query, options))

    @override
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        return await self._found(query, options)

    async def _found(self, query: str, options: dict[str, Any]) -> list[Document]:
        options = {"k": self.k, "collection": self.collection} | (self.model_extra or {}) | options
        return [_cited(hit) for hit in await self.manager.search(query, **options)]


def _documents(
    texts: list[str], metadatas: list[dict[str, Any]] | None, ids: Sequence[str | None] | None
) -> list[SourceDocument]:
    metadatas = [{} for _ in texts] if metadatas is None else metadatas
    ids = [None] * len(texts) if ids is None else ids
    if not len(texts) == len(metadatas) == len(ids):
        raise Invalid(f"There are {len(texts)} texts, {len(metadatas)} metadatas and {len(ids)} ids.")
    return [
        SourceDocument(source=given or str(uuid4()), text=text, title=_title(text, metadata), metadata=dict(metadata))
        for text, metadata, given in zip(texts, metadatas, ids, strict=True)
    ]


def _title(text: str, metadata: dict[str, Any]) -> str:
    """It is embedded with each passage: an id would only be noise."""
    given = metadata.get("title")
    return given if isinstance(given, str) and given else text.strip().partition("\n")[0][:_LONGEST_TITLE]


def _cited(hit: Hit) -> Document:
    place = {"title": hit.title, "source": hit.source, "document_id": str(hit.document_id)}
    found = {"score": hit.score, "start": hit.start, "end": hit.end}
    return Document(id=str(hit.id), page_content=hit.text, metadata=hit.metadata | place | found)


def _sources(scope: Scope, document_ids: Iterable[UUID]) -> dict[UUID | None, str]:
    return dict(scope.documents.filter(id__in=list(document_ids)).values_list("id", "source"))


def _ids(scope: Scope, collection_id: UUID, sources: Sequence[str]) -> list[UUID]:
    found = scope.documents.filter(collection_id=collection_id, source__in=list(sources))
    return list(found.values_list("id", flat=True))


def _whole(scope: Scope, collection_id: UUID, sources: Sequence[str]) -> list[Document]:
    found = scope.documents.filter(collection_id=collection_id, source__in=list(sources))
    known = {row[0]: row for row in found.values_list("source", "text", "metadata")}
    rows = [known[each] for each in sources if each in known]
    return [Document(id=source, page_content=text, metadata=metadata) for source, text, metadata in rows]


def _passages(scope: Scope, hits: Sequence[Hit]) -> list[tuple[Document, float]]:
    """As they were added: a document's own metadata, nothing beside them."""
    found = scope.documents.filter(id__in={hit.document_id for hit in hits})
    metadata = dict(found.values_list("id", "metadata"))
    return [
        (Document(id=hit.source, page_content=hit.text, metadata=metadata[hit.document_id]), hit.score)
        for hit in hits
        if hit.document_id in metadata
    ]


def _seen(scope: Scope, scored: Sequence[Scored], where: Filter | None) -> list[Document]:
    names = ("document__source", "document__title", "document__metadata", "metadata", "text")
    found = scope.chunks.filter(id__in=[each.chunk_id for each in scored]).values_list("id", *names)
    known = {row[0]: row[1:] for row in found}
    rows = [known[each.chunk_id] for each in scored if each.chunk_id in known]
    return [
        Document(id=source, page_content=text, metadata=metadata)
        for source, title, metadata, own, text in rows
        if where is None or where.matches(metadata | own, source=source, title=title)
    ]
