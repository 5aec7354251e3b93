"""The searches that a team would write by itself, in SQL or through Django's ORM: what ours is held against."""

from time import perf_counter
from typing import Any

import numpy as np

from benchmarks import large
from benchmarks.large import Loaded
from benchmarks.parts.recall import K

Questions = dict[str, np.ndarray]
Milliseconds = list[float]

#: Of each ranking so many are fused.
FUSED = 50


async def through_orm(whole: Loaded, questions: Questions, depth: int) -> Milliseconds:
    # Django's, and the project's own: after Django's set-up.
    from django.db import connection
    from django.db.models.functions import Cast
    from pgvector.django import CosineDistance, HalfVectorField

    from kernel import database
    from vectorstore.models import ChunkVector

    def nearest(vector: np.ndarray) -> list[Any]:
        near = CosineDistance(Cast("embedding", HalfVectorField(dimensions=large.DIMENSION)), vector)
        rows = ChunkVector.objects.filter(vector_set_id=whole.set_id).select_related("chunk__document")
        found = rows.defer("chunk__document__text").order_by(near)[: K + K // 2]
        with connection.cursor() as cursor:
            cursor.execute(f"SET hnsw.ef_search = {depth}")
        return sorted(found, key=lambda each: -float(np.dot(each.embedding, vector)))[:K]

    took = []
    for vector in questions.values():
        begun = perf_counter()
        hits = await database.run(nearest, vector)
        took.append((perf_counter() - begun) * 1000)
        check(hits)
    return took


def ask(connection: Any, statement: str, questions: Questions, depth: int) -> Milliseconds:
    connection.execute(f"SET hnsw.ef_search = {depth}")
    took = []
    for text, vector in questions.items():
        begun = perf_counter()
        hits = connection.execute(statement, {"asked": vector, "text": text}).fetchall()
        took.append((perf_counter() - begun) * 1000)
        check(hits)
    return took


def vector(connection: Any, whole: Loaded) -> str:
    """The index's order, made good by the whole vectors, with what a citation needs."""
    return f"""
        SELECT c.id, c.text, c.start, c."end", c.metadata, d.title, d.source, n.distance
        FROM ({_near(connection, whole, K + K // 2, K)}) n
        JOIN vectorstore_chunk c ON c.id = n.chunk_id JOIN vectorstore_document d ON d.id = c.document_id
        ORDER BY distance"""


def hybrid(connection: Any, whole: Loaded) -> str:
    """Reciprocal rank fusion, as it is shown for pgvector; any word of the question counts."""
    return f"""
        WITH asked AS MATERIALIZED (
            SELECT string_agg(quote_literal(lexeme), ' | ')::tsquery AS query
            FROM unnest(to_tsvector('english', %(text)s))
        ),
        near AS (
            SELECT chunk_id, row_number() OVER (ORDER BY distance) AS place
            FROM ({_near(connection, whole, FUSED, FUSED)}) n
        ),
        words AS (
            SELECT chunk_id, row_number() OVER (ORDER BY rank DESC) AS place
            FROM (
                SELECT chunk_id, ts_rank(terms, query) AS rank
                FROM vectorstore_chunklookup, asked
                WHERE collection_id = '{whole.collection_id}' AND terms @@ query
                ORDER BY rank DESC LIMIT {FUSED}
            ) w
        ),
        fused AS (
            SELECT coalesce(n.chunk_id, w.chunk_id) AS chunk_id,
                coalesce(1.0 / (60 + n.place), 0) + coalesce(1.0 / (60 + w.place), 0) AS score
            FROM near n FULL JOIN words w ON w.chunk_id = n.chunk_id
            ORDER BY score DESC LIMIT {K}
        )
        SELECT c.id, c.text, c.start, c."end", c.metadata, d.title, d.source, f.score
        FROM fused f
        JOIN vectorstore_chunk c ON c.id = f.chunk_id JOIN vectorstore_document d ON d.id = c.document_id
        ORDER BY f.score DESC"""


def _near(connection: Any, whole: Loaded, candidates: int, count: int) -> str:
    kind = large.index_type(connection, whole)
    return f"""
        SELECT chunk_id, embedding <=> %(asked)s AS distance
        FROM (
            SELECT chunk_id, embedding FROM vectorstore_chunkvector WHERE vector_set_id = '{whole.set_id}'
            ORDER BY embedding::{kind} <=> %(asked)s::{kind} LIMIT {candidates}
        ) v
        ORDER BY distance LIMIT {count}"""


def check(hits: Any, *, least: int = K) -> None:
    if len(hits) < least:
        raise RuntimeError(f"A search found {len(hits)} instead of {least}.")
