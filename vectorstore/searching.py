"""One search: what is allowed, and the one statement that finds, fuses and reads the hits.

Candidates come from the vectors and from the words. Where both are asked for, their rankings are fused by reciprocal
rank: each place n of a ranking counts 1 / (60 + n). The statement joins what it found to the chunks of collections
that the reader may read, behind the wall of vectorstore.scope, and gives nothing else.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import Q
from pgvector import Vector

from kernel.errors import Invalid
from kernel.text import storable
from llm.registry import rerankers
from vectorstore import candidates, filters, index_scan, rows, words
from vectorstore.candidates import Narrowing
from vectorstore.filters import Sql
from vectorstore.models import ChunkVector
from vectorstore.scope import Scope
from vectorstore.values import CollectionInfo, Hit, Passage, Scored, SearchRequest, SetInfo

MAX_K: Final = 50
MAX_NEIGHBOURS: Final = 10
MAX_DOCUMENTS: Final = 100
#: Of these many candidates of each ranking the best are fused, or put in another order.
_POOL: Final = 50
_MODES = ("vector", "text", "hybrid")
#: What is embedded of a long question: models read no more.
_MOST_CHARACTERS: Final = 8000


def checked(query: str | SearchRequest, **options: Any) -> SearchRequest:
    """The request, as it may be asked. Raises Invalid that says what is allowed."""
    if isinstance(query, SearchRequest) and options:
        raise Invalid("Options belong into the SearchRequest.")
    unknown = set(options) - {each.name for each in fields(SearchRequest)}
    if unknown:
        raise Invalid(f"A search has no option {min(unknown)!r}.")
    asked = query if isinstance(query, SearchRequest) else SearchRequest(query=query, **options)
    _bounded("k", asked.k, 1, MAX_K)
    _bounded("neighbours", asked.neighbours, 0, MAX_NEIGHBOURS)
    if asked.mode not in _MODES:
        raise Invalid(f"mode is one of {', '.join(_MODES)}, not {str(asked.mode)[:60]!r}.")
    if asked.mmr is not None:
        _bounded("mmr", asked.mmr, 0, 1)
    if asked.decay is not None and not 0 < asked.decay <= 100_000:
        raise Invalid("decay is a half-life in days, more than 0.")
    if len(asked.documents) > MAX_DOCUMENTS:
        raise Invalid(f"A search names at most {MAX_DOCUMENTS} documents.")
    if asked.rerank and asked.rerank not in rerankers.names():
        known = ", ".join(rerankers.names())
        raise Invalid(f"There is no reranker {asked.rerank[:60]!r}; known: {known}.")
    return replace(asked, query=storable(asked.query)[:_MOST_CHARACTERS].strip())


def narrowing(request: SearchRequest) -> Narrowing:
    """Raises Invalid for a wrong filter."""
    where = None if request.where is None else filters.parse(request.where)
    return Narrowing(where=where, documents=request.documents)


def pool(request: SearchRequest) -> int:
    """How many hits to find: more than are wanted, where something puts them in another order."""
    reordered = request.mmr is not None or request.decay is not None or request.rerank
    return max(_POOL, request.k) if reordered else request.k


def collection(scope: Scope, named: str | UUID) -> CollectionInfo | None:
    """The collection of that name or id, if the reader may read it."""
    return rows.look_up(scope, **({"id": named} if isinstance(named, UUID) else {"name": named}))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search that is ready to be asked. `near`: see vectorstore.candidates; `vector` is what it was made for."""

    collection: CollectionInfo
    request: SearchRequest
    narrowing: Narrowing
    near: Sql
    vector: Sequence[float] | None = None


def nearest(found: CollectionInfo, request: SearchRequest, which: Narrowing, vector: Sequence[float]) -> Sql:
    """The vector part of a search of a set in PostgreSQL."""
    return index_scan.nearest(found.active, vector, limit=depth(request), narrowing=which, sure=_sure(request))


def settings(plan: Plan) -> dict[str, str]:
    """Settings of PostgreSQL for a plan: Scope.tuned."""
    return (
        {}
        if plan.vector is None
        else index_scan.settings(plan.collection.active, depth(plan.request), sure=_sure(plan.request))
    )


def given(request: SearchRequest, which: Narrowing, scored: Sequence[Scored]) -> Sql:
    """The vector part, found by a backend outside PostgreSQL."""
    return candidates.given(scored, limit=depth(request), narrowing=which)


def passing(scope: Scope, found: CollectionInfo, which: Narrowing, scored: Sequence[Scored]) -> list[Scored]:
    """Those of what a backend found that the reader may see and the filter lets through, in their order."""
    joins, values = which.joined("c.id")
    readable = scope.chunks.filter(collection_id=found.id, id__in=[each.chunk_id for each in scored])
    ids, id_values = readable.values("id").query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT c.id FROM vectorstore_chunk c {joins} WHERE c.id IN ({ids})",  # noqa: S608  made of our own parts
            [*values, *id_values],
        )
        visible = {chunk_id for (chunk_id,) in cursor.fetchall()}
    return [each for each in scored if each.chunk_id in visible]


async def hits(scope: Scope, plan: Plan) -> list[Hit]:
    """The hits of a plan, best first."""
    tuned = scope.tuned(settings(plan))
    if _is_tried(plan):
        return await tuned.run(find, plan)
    planned_once = not plan.narrowing and (plan.vector is None or index_scan.is_ready(plan.collection.active))
    rows = await tuned.ask(partial(statement, plan=plan), planned_once=planned_once)
    return [_hit(row) for row in rows]


def find(scope: Scope, plan: Plan) -> list[Hit]:
    """The same as a unit for Scope.run: first it is tried how a filter is best met."""
    with connection.cursor() as cursor:
        if plan.vector is not None and _is_tried(plan):
            near = index_scan.narrowed(
                cursor, plan.collection.active, plan.vector, limit=depth(plan.request), narrowing=plan.narrowing
            )
            plan = replace(plan, near=near)
        cursor.execute(*statement(scope, plan))
        return [_hit(row) for row in cursor.fetchall()]


def _is_tried(plan: Plan) -> bool:
    return plan.vector is not None and bool(plan.narrowing) and index_scan.is_ready(plan.collection.active)


def vectors(scope: Scope, of: SetInfo, chunk_ids: Sequence[UUID]) -> dict[UUID, list[float]]:
    """The vectors of chunks of a set in PostgreSQL."""
    found = ChunkVector.objects.filter(
        vector_set_id=of.id, vector_set__workspace_id=scope.workspace_id, chunk_id__in=chunk_ids
    )
    return dict(found.values_list("chunk_id", "embedding"))


def with_neighbours(scope: Scope, hits: Sequence[Hit], count: int) -> list[Hit]:
    """The hits, each with up to `count` chunks before and after it as one passage."""
    around = Q()
    for hit in hits:
        around |= Q(document_id=hit.document_id, position__range=(hit.position - count, hit.position + count))
    chunks = scope.chunks.filter(around).order_by("position") if hits else scope.chunks.none()
    found = list(chunks.values_list("document_id", "position", "text", "start", "end"))
    return [
        replace(
            hit,
            neighbours=_joined(
                [row[2:] for row in found if row[0] == hit.document_id and abs(row[1] - hit.position) <= count]
            ),
        )
        for hit in hits
    ]


def _joined(pieces: Sequence[tuple[str, int, int]]) -> Passage | None:
    """Chunks that follow each other as one text: what two of them share stands there once."""
    if not pieces:
        return None
    text, start, end = pieces[0]
    for piece, piece_start, piece_end in pieces[1:]:
        # Between chunks there is nothing but white space.
        text += "\n" * (piece_start - end) + piece[max(0, end - piece_start) :]
        end = max(end, piece_end)
    return Passage(text=text, start=start, end=end)


def statement(scope: Scope, plan: Plan) -> Sql:
    found = plan.collection
    readable, readable_values = scope.readable(found)
    near, near_values = plan.near
    parts = [f"readable AS MATERIALIZED ({readable})", f"near AS MATERIALIZED ({near})"]
    values = [*readable_values, *near_values]
    for part, part_values in (*_text_parts(plan), _found(plan)):
        parts.append(part)
        values += part_values
    similarity, similarity_values = _similarity(plan)
    # Parts are materialized: row security lets no other condition look a chunk up by its key, and every chunk of the
    # collection would be read.
    text = f"""
        WITH {", ".join(parts)},
        best AS MATERIALIZED (SELECT * FROM found ORDER BY score DESC, chunk_id LIMIT %s)
        SELECT c.id, c.document_id, d.title, d.source, c.text, f.score, c.start, c."end", r.id, r.name, c.position,
            d.metadata || c.metadata, {similarity}, coalesce(d.dated_at, d.created_at)
        FROM best f
        JOIN vectorstore_chunk c ON c.id = f.chunk_id
        JOIN vectorstore_document d ON d.id = c.document_id
        JOIN readable r ON r.id = c.collection_id
        WHERE c.workspace_id = %s
        ORDER BY f.score DESC, f.chunk_id"""  # noqa: S608  made of our own parts
    return text, [*values, pool(plan.request), *similarity_values, scope.workspace_id]


def depth(request: SearchRequest) -> int:
    """How many of each ranking are fused."""
    return max(_POOL, request.k) if request.mode == "hybrid" else pool(request)


def _sure(request: SearchRequest) -> int:
    """How many of the nearest an approximate index has to find: what stands behind them only lends a rank."""
    return request.k if request.mode == "hybrid" else pool(request)


def _text_parts(plan: Plan) -> list[Sql]:
    if plan.request.mode == "vector":
        return []
    found, request, common = plan.collection, plan.request, words.common(plan.collection.active)
    question, values = candidates.asked(found.language, request.query, common)
    matching = candidates.matching(
        found.id, limit=depth(request), enough=max(_POOL, request.k), common=common, narrowing=plan.narrowing
    )
    return [(f"asked AS MATERIALIZED ({question})", values), matching]


def _found(plan: Plan) -> Sql:
    """The part with each candidate's `score`, without those that are below `min_score`, and its `distance` if known."""
    text, least = _SCORED[plan.request.mode], plan.request.min_score
    if least is None:
        return f"found AS ({text})", []
    if plan.request.mode != "hybrid":
        return f"found AS (SELECT * FROM ({text}) f WHERE f.score >= %s)", [least]  # noqa: S608  made of our own parts
    similarity, values = _similarity(plan)
    return f"found AS (SELECT * FROM ({text}) f WHERE f.every OR {similarity} >= %s)", [*values, least]  # noqa: S608  as above


_SCORED: Final = {
    "vector": "SELECT chunk_id, distance, 1 - distance AS score FROM near WHERE distance <> 'NaN'",
    "text": "SELECT chunk_id, NULL::float8 AS distance, rank AS score FROM words",
    "hybrid": """
        SELECT coalesce(n.chunk_id, w.chunk_id) AS chunk_id, n.distance, w.every,
            (coalesce(1.0 / (60 + n.place), 0) + coalesce(1.0 / (60 + w.place), 0))::float8 * 61 / 2 AS score
        FROM (
            SELECT *, row_number() OVER (ORDER BY distance, chunk_id) AS place FROM near WHERE distance <> 'NaN'
        ) n
        FULL JOIN (SELECT *, row_number() OVER (ORDER BY rank DESC, chunk_id) AS place FROM words) w
            ON w.chunk_id = n.chunk_id""",
}


def _similarity(plan: Plan) -> Sql:
    """The similarity of what is found as `f`; by its words alone, it is compared now, if PostgreSQL has its vector."""
    if plan.request.mode != "hybrid" or plan.vector is None:
        return "1 - f.distance", []
    text = f"""coalesce(1 - f.distance, nullif((
        SELECT 1 - ({candidates.distance(plan.collection.active)}) FROM vectorstore_chunkvector v
        WHERE v.vector_set_id = %s AND v.chunk_id = f.chunk_id), 'NaN'))"""  # noqa: S608  made of our own parts
    return text, [Vector(list(plan.vector)), plan.collection.active.id]


_COLUMNS: Final = (
    "id", "document_id", "title", "source", "text", "score", "start", "end", "collection_id", "collection",
    "position", "metadata", "similarity", "dated_at",
)  # fmt: skip


def _hit(row: Sequence[Any]) -> Hit:
    found = dict(zip(_COLUMNS, row, strict=True))
    # Django has psycopg leave JSON as text.
    found["metadata"] = json.loads(found["metadata"])
    return Hit(**found)


def _bounded(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise Invalid(f"{name} must be from {least} to {most}, not {value}.")
