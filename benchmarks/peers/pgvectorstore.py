# /// script
# requires-python = ">=3.11"
# dependencies = ["langchain-postgres==0.0.19", "langchain-core==1.7.2", "sqlalchemy==2.0.51", "psycopg[binary]==3.3.9"]
# ///
"""LangChain's PGVectorStore over the same rows: it reads a table as it comes, here a view of ours.

It needs an older pgvector than we do, so uv runs it in an environment of its own. One line of JSON says where and what
(`connect`, `view`, `questions`, `k`, `fused`); each further line is a round ("vector" or "hybrid"), and is answered by
one with the milliseconds of every search.
"""

import asyncio
import json
import sys
from time import perf_counter
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_postgres import PGEngine, PGVectorStore
from langchain_postgres.v2.hybrid_search_config import HybridSearchConfig, reciprocal_rank_fusion
from sqlalchemy.ext.asyncio import create_async_engine


class NoEmbeddings(Embeddings):
    """The questions come with their vectors."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


async def main() -> None:
    order = json.loads(sys.stdin.readline())
    store, questions = await _store(order), order["questions"]
    print(json.dumps({"found": [await _ids(store, vector, order["k"]) for _, vector in questions[:20]]}), flush=True)
    for line in sys.stdin:
        fused = order["fused"] if line.strip() == "hybrid" else None
        print(json.dumps([await _time(store, *each, order["k"], fused) for each in questions]), flush=True)


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


async def _time(store: PGVectorStore, text: str, vector: list[float], k: int, fused: int | None) -> float:
    begun = perf_counter()
    words = {}
    if fused:
        config = HybridSearchConfig(
            tsv_column="terms",
            fts_query=text,
            fusion_function=reciprocal_rank_fusion,
            primary_top_k=fused,
            secondary_top_k=fused,
        )
        words["hybrid_search_config"] = config
    await store.asimilarity_search_with_score_by_vector(vector, k=k, **words)
    return (perf_counter() - begun) * 1000


async def _ids(store: PGVectorStore, question: list[float], k: int) -> list[str]:
    found = await store.asimilarity_search_with_score_by_vector(question, k=k)
    return [str(document.id) for document, _ in found]


if __name__ == "__main__":
    asyncio.run(main())
