"""LangChain's own suites for vector stores and retrievers, over the stores that ship; Pinecone is a stand-in."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from kernel.errors import Invalid
from llm import aliases
from tests.support import vector_stores as support
from tests.support.vector_stores import Stores
from tests.vectorstore.conftest import CountingEmbedder, new_workspace
from vectorstore.langchain import ManagerRetriever, as_vectorstore
from vectorstore.manager import VectorStoreManager

pytestmark = pytest.mark.django_db(transaction=True)
SHIPPED = ("pgvector", "chroma", "pinecone")


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with support.started(tmp_path_factory.mktemp("stores")) as made:
        yield made


@pytest.fixture(params=SHIPPED)
async def manager(
    request: pytest.FixtureRequest, stores: Stores, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[VectorStoreManager]:
    """Of a new workspace."""
    support.with_key(monkeypatch)
    name, options = stores.options(request.param)
    settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, name, options)
    yield VectorStoreManager(await new_workspace(), embedder=CountingEmbedder())
    # Connections belong to this test's event loop.
    await aliases.close()


class TestStandard(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, manager: VectorStoreManager) -> VectorStore:
        return as_vectorstore(manager, collection="papers")


class TestStandardRetriever(RetrieversIntegrationTests):
    params: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    async def filled(self, manager: VectorStoreManager, monkeypatch: pytest.MonkeyPatch) -> None:
        texts = ["apples are red", "pears are green", "plums are blue", "cherries are red"]
        await as_vectorstore(manager, collection="fruit").aadd_texts(texts)
        # The suite asks the class for them.
        monkeypatch.setattr(type(self), "params", {"manager": manager, "collection": "fruit"})

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return ManagerRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return self.params

    @property
    def retriever_query_example(self) -> str:
        return "what is red?"


class TestBeyondTheSuite:
    @pytest.fixture
    def store(self, manager: VectorStoreManager) -> Any:
        return as_vectorstore(manager, collection="fruit")

    async def test_scores_are_similarities_and_the_filter_is_ours(self, store):
        await store.aadd_texts(["red apples", "red cherries"], [{"price": 2}, {"price": 9}], ids=["a", "c"])
        (first, score), (_, second) = await store.asimilarity_search_with_score("red apples", k=2)
        assert first == Document(id="a", page_content="red apples", metadata={"price": 2})
        assert 1.01 > score > second > 0
        vector = await store.embeddings.aembed_query("red apples")
        dear = {"range": {"price": {"gt": 5}}}
        assert [each.id for each in await store.asimilarity_search_by_vector(vector, k=1, filter=dear)] == ["c"]

    async def test_relevance_that_is_marginal_is_given_to_something_else(self, store):
        texts = ["red apples fruit", "red apples fruits", "red bricks"]
        await store.aadd_texts(texts, ids=["a", "b", "c"])
        found = await store.amax_marginal_relevance_search("red apples fruit", k=2, lambda_mult=0.1)
        assert [each.id for each in found] == ["a", "c"]

    async def test_the_same_text_is_kept_once_under_the_id_it_is_known_by(self, store):
        assert await store.aadd_texts(["apples"], ids=["a"]) == ["a"]
        assert await store.aadd_texts(["apples", "pears"], ids=["b", "p"]) == ["a", "p"]

    async def test_from_texts_needs_a_manager_and_no_model_of_its_own(self, manager):
        kind = type(as_vectorstore(manager))
        store = await kind.afrom_texts(["apples"], None, ids=["a"], manager=manager)
        assert [each.id for each in await store.aget_by_ids(["a", "z"])] == ["a"]
        with pytest.raises(Invalid, match="manager="):
            await kind.afrom_texts(["apples"], None)
        with pytest.raises(Invalid, match="embedding=None"):
            await kind.afrom_texts(["apples"], TestStandard.get_embeddings(), manager=manager)

    async def test_a_sync_method_inside_an_event_loop_says_what_to_use(self, store):
        with pytest.raises(RuntimeError, match="async methods"):
            store.similarity_search("apples")

    async def test_ids_and_metadata_must_be_as_many_as_texts(self, store):
        with pytest.raises(Invalid, match="2 texts, 1 metadatas"):
            await store.aadd_texts(["a", "b"], [{}])

    async def test_a_retriever_cites(self, manager, store):
        await store.aadd_texts(["# Apples\n\nThey are red."], [{"edition": 3}], ids=["apples.md"])
        retriever = manager.as_retriever(collection="fruit", k=1, min_score=0.01)
        (found,) = await retriever.ainvoke("red")
        assert found.metadata["source"] == "apples.md"
        assert found.page_content == "# Apples\n\nThey are red."[found.metadata["start"] : found.metadata["end"]]
        assert await asyncio.to_thread(retriever.invoke, "red") == [found]
        assert await retriever.ainvoke("red", min_score=0.999) == []
