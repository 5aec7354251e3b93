"""The vector store's Django app. It names its parts as strings: they are imported when first used."""

import psycopg
from django.apps import AppConfig
from django.core import checks
from pgvector import Vector
from pgvector.psycopg.vector import VectorBinaryDumper, VectorDumper

from llm.registry import answer_caches, document_checks, embedding_providers, rerankers, vector_stores, workflow_steps
from vectorstore.checks import row_security


class VectorstoreConfig(AppConfig):
    name = "vectorstore"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from vectorstore import signals  # noqa: F401, PLC0415  connects its receivers; needs the app registry

        # For Django's cursors, which write a value into the statement's text, and for those that send it beside.
        psycopg.adapters.register_dumper(Vector, VectorDumper)
        psycopg.adapters.register_dumper(Vector, VectorBinaryDumper)
        checks.register(row_security, checks.Tags.database)
        embedding_providers.add("fake", "llm.embeddings.fake:create")
        embedding_providers.add("openai", "llm.embeddings.openai:create", extra="openai")
        embedding_providers.add("wordllama", "llm.embeddings.wordllama:create", extra="embedded")
        vector_stores.add("pgvector", "vectorstore.backends.pgvector:create")
        vector_stores.add("chroma", "vectorstore.backends.chroma:create", extra="chroma")
        vector_stores.add("pinecone", "vectorstore.backends.pinecone:create", extra="pinecone")
        rerankers.add("lexical", "vectorstore.ranking:create_lexical")
        answer_caches.add("semantic", "vectorstore.answers:create")
        document_checks.add("documents", "vectorstore.rows:still_there")
        workflow_steps.add("retrieve", "vectorstore.steps:RetrieveStep")
