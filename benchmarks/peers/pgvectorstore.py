# /// script
# requires-python = ">=3.11"
# dependencies = ["langchain-postgres==0.0.19", "langchain-core==1.7.2", "sqlalchemy==2.0.51", "psycopg[binary]==3.3.9"]
# ///
"""LangChain's PGVectorStore over the same rows: it reads a table as it comes, here a view of ours.

It needs an older pgvector than we do, so uv runs it in an environment of its own. One line of JSON says where and what
(`connect`, `view`, `questions`, `k`); each further line is a round, and is answered by one with the
milliseconds of every search.
"""

import asyncio
import json
import sys
from time import perf_counter
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_postgres import PGEngine, PGVectorStore
from sqlalchemy.ext.asyncio import create_async_engine


class NoEmbeddings(Embeddings):
    """The questions come with their vectors."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


async def main() -> None:
    order = json.loads(sys.stdin.readline())
    store = await _store(order)
    print(json.dumps({"found": [await _ids(store, each, order["k"]) for each in order["questions"][:20]]}), flush=True)
    for _ in sys.stdin:
        print(json.dumps([await _time(store, each, order["k"]) for each in order["questions"]]), flush=True)


async def _store(order: dict[str, Any]) -> PGVectorStore:
    engine = create_async_engine("postgresql+psycopg://", pool_size=1, connect_args=order["connect"])
    return await PGVectorStore.create(
        PGEngine.from_engine(engine),
        NoEmbeddings(),
        table_name=order["view"],
        id_column="id",
        content_column="text",
        embedding_column="embedding",
        metadata_columns=["title", "source"],
        metadata_json_column="metadata",
        k=order["k"],
    )


async def _time(store: PGVectorStore, question: list[float], k: int) -> float:
    begun = perf_counter()
    await store.asimilarity_search_with_score_by_vector(question, k=k)
    return (perf_counter() - begun) * 1000


async def _ids(store: PGVectorStore, question: list[float], k: int) -> list[str]:
    found = await store.asimilarity_search_with_score_by_vector(question, k=k)
    return [str(document.id) for document, _ in found]


if __name__ == "__main__":
    asyncio.run(main())
