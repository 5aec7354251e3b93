"""LangChain's own suites for the embeddings that need no server.

Ours have the interface without its import; a LangChain user mixes the base class in and gets the async methods by it.
"""

from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from llm.embeddings.fake import FakeEmbeddings
from llm.embeddings.wordllama import WordLlamaEmbeddings


class Fake(FakeEmbeddings, Embeddings):
    pass


class WordLlama(WordLlamaEmbeddings, Embeddings):
    pass


class _OfFake:
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return Fake

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"dimension": 8}


class _OfWordLlama:
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return WordLlama

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"dimension": 64}


class TestFake(_OfFake, EmbeddingsUnitTests):
    pass


class TestFakeCalls(_OfFake, EmbeddingsIntegrationTests):
    pass


class TestWordLlama(_OfWordLlama, EmbeddingsUnitTests):
    pass


class TestWordLlamaCalls(_OfWordLlama, EmbeddingsIntegrationTests):
    pass
