"""Asking a set's approximate index: how far it is scanned, and the SQL. Why so: docs/decisions/0010.

Without a filter, what is nearest by the index is put in order by its whole vectors. A filter is tried on the nearest
ones first: a wide one leaves enough of them. Else the passages that it lets through are counted, up to a bound: few are
compared exactly, as in a set without an index; many are looked for further on in the index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, Final
from uuid import UUID

from pgvector import Vector

from vectorstore import candidates, filters
from vectorstore.candidates import Narrowing
from vectorstore.filters import Filter, Sql
from vectorstore.models import IndexState
from vectorstore.values import SetInfo

#: Candidates that PostgreSQL keeps while it walks the graph: at least, and at most (pgvector's own bound).
_LEAST_EF: Final = 100
_MOST_EF: Final = 1000
_LEAST_FURTHER: Final = 100
#: Vectors that a scan looks at when a filter leaves out nearly all of them, and its memory in units of work_mem.
_MOST_SCANNED: Final = 40_000
_MEMORY: Final = 8
#: Where no index helps with a filter, each passage has to be looked at: in larger sets nobody waits for that.
_MOST_LOOKED_THROUGH: Final = 500_000


@dataclass(frozen=True, kw_only=True)
class Depth:
    """`ef`: pgvector's ef_search. `wanted`: candidates that are put in order, `further`: those that are found after the
    first `ef`, in no strict order. `few`: up to so many that a filter lets through are compared exactly; it may be so
    few if less than `scarce` of the first `ef` pass.
    """

    ef: int
    wanted: int
    further: int
    few: int
    scarce: int


def depth(vectors: SetInfo, limit: int, *, sure: int | None = None) -> Depth:
    """The policy for `limit` candidates, of which the first `sure` (None: all) are hardly ever missed.

    With more passages than `few`, going on in the index takes less time than comparing them all, and finds nearly all:
    the first grows with their number, the second falls with it.
    """
    sure = limit if sure is None else sure
    wanted = limit + max(5, sure // 2)
    ef = min(max(_LEAST_EF, wanted, 4 * sure), _MOST_EF)
    few = max(2_000, 4 * isqrt(wanted * vectors.index_rows))
    return Depth(
        ef=ef,
        wanted=wanted,
        further=max(_LEAST_FURTHER, 8 * limit),
        few=few,
        scarce=min(wanted, 2 * few * ef // max(1, vectors.index_rows) + 1),
    )


def is_ready(vectors: SetInfo) -> bool:
    return vectors.index == IndexState.READY


def settings(vectors: SetInfo, limit: int, *, sure: int | None = None) -> dict[str, str]:
    """How PostgreSQL is to scan; none for a set without an index."""
    if not is_ready(vectors):
        return {}
    return {
        "hnsw.ef_search": str(depth(vectors, limit, sure=sure).ef),
        # Goes on where what was found is deleted or left out. The order is made good by the whole vectors.
        "hnsw.iterative_scan": "relaxed_order",
        "hnsw.max_scan_tuples": str(_MOST_SCANNED),
        "hnsw.scan_mem_multiplier": str(_MEMORY),
        # Nothing else gives an order unsorted. The planner doesn't know what it costs to read and compare long vectors.
        "enable_sort": "off",
        # Compiling takes longer than the search: the estimate knows nothing of the branches that are not taken.
        "jit": "off",
    }


def nearest(
    vectors: SetInfo, vector: Sequence[float], *, limit: int, narrowing: Narrowing, sure: int | None = None
) -> Sql:
    """`chunk_id` and cosine `distance` of the nearest of a set in PostgreSQL: by its index, if there is one.

    An index behind a filter is for `narrowed`, within the search's transaction.
    """
    if not is_ready(vectors):
        return candidates.nearest(vectors, vector, limit=limit, narrowing=narrowing)
    if narrowing:
        return candidates.none_near()
    given = Vector(list(vector))
    return _in_order(vectors, given, _ordered(vectors, given, depth(vectors, limit, sure=sure).wanted), limit)


def narrowed(cursor: Any, vectors: SetInfo, vector: Sequence[float], *, limit: int, narrowing: Narrowing) -> Sql:
    """The same of a set with an index behind a filter, after a try (one statement) of whether the nearest pass."""
    given, how = Vector(list(vector)), depth(vectors, limit)
    passed: list[tuple[UUID, float]] = []
    # Some documents of a large set are too few to try it.
    if not narrowing.documents:
        cursor.execute(*_in_order(vectors, given, _first(vectors, given, how, narrowing), how.wanted))
        passed = cursor.fetchall()
    if len(passed) >= how.wanted:
        ids, distances = zip(*passed[:limit], strict=True)
        return "SELECT * FROM unnest(%s::uuid[], %s::float8[]) AS n(chunk_id, distance)", [list(ids), list(distances)]
    if len(passed) >= how.scarce:
        return _in_order(vectors, given, _further(vectors, given, how, narrowing), limit)
    return _in_order(vectors, given, _thorough(vectors, given, how, narrowing), limit)


def _in_order(vectors: SetInfo, given: Vector, found: Sql, limit: int) -> Sql:
    """What was found, by the distance of its whole vectors."""
    text, values = found
    text = f"""
        SELECT v.chunk_id, {candidates.distance(vectors)} AS distance FROM ({text}) v
        WHERE EXISTS (SELECT FROM vectorstore_vectorset s WHERE s.id = %s AND s.workspace_id = %s)
        ORDER BY distance LIMIT %s"""  # noqa: S608  made of our own parts
    return text, [given, *values, vectors.id, vectors.workspace_id, limit]


def _ordered(vectors: SetInfo, given: Vector, count: int, condition: str = "true", values: Sequence[Any] = ()) -> Sql:
    """The first `count` in the index's order. The set's id stands in the text: only a constant proves that the index,
    which holds this set alone, has all that is asked for.
    """
    kind = f"{vectors.index_type}({vectors.space.dimension})"
    text = f"""
        SELECT v.chunk_id, v.embedding FROM vectorstore_chunkvector v
        WHERE v.vector_set_id = '{vectors.id}' AND {condition}
        ORDER BY v.embedding::{kind} <=> %s::vector::{kind} LIMIT {count}"""  # noqa: S608  made of our own parts
    return text, [*values, given]


def _passes(narrowing: Narrowing) -> Sql:
    """The filter, asked of each row in the index's order: a join would have PostgreSQL sort the whole set."""
    conditions, values = narrowing.conditions()
    return (
        f"(SELECT {conditions} FROM vectorstore_chunklookup l {narrowing.document()} WHERE l.chunk_id = v.chunk_id)",  # noqa: S608  made of our own parts
        values,
    )


def _first(vectors: SetInfo, given: Vector, how: Depth, narrowing: Narrowing) -> Sql:
    """Of the nearest, those that pass, no more than are wanted."""
    (nearest, values), (passes, filter_values) = _ordered(vectors, given, how.ef), _passes(narrowing)
    text = f"SELECT v.chunk_id, v.embedding FROM ({nearest}) v WHERE {passes} LIMIT {how.wanted}"  # noqa: S608  made of our own parts
    return text, [*values, *filter_values]


def _further(vectors: SetInfo, given: Vector, how: Depth, narrowing: Narrowing, only_if: str = "true") -> Sql:
    """Those that pass, as far as the index is scanned."""
    passes, values = _passes(narrowing)
    return _ordered(vectors, given, how.further, f"{only_if} AND {passes}", values)


def _thorough(vectors: SetInfo, given: Vector, how: Depth, narrowing: Narrowing) -> Sql:
    """All that pass, if they are few; else those that are found further on. A condition without a column of the row is
    tested once, before anything is read, so only one of the two branches runs.
    """
    few, few_values = _counted(vectors, how, narrowing)
    many = f"(SELECT count(*) FROM few) > {how.few}"  # noqa: S608  made of our own parts
    further, values = _further(vectors, given, how, narrowing, many)
    text = f"""
        WITH few AS MATERIALIZED ({few})
        SELECT v.chunk_id, v.embedding
        FROM few JOIN vectorstore_chunkvector v ON v.vector_set_id = '{vectors.id}' AND v.chunk_id = few.chunk_id
        WHERE (SELECT count(*) FROM few) <= {how.few}
        UNION ALL
        ({further})"""  # noqa: S608  made of our own parts
    return text, [*few_values, *values]


def _counted(vectors: SetInfo, how: Depth, narrowing: Narrowing) -> Sql:
    """One more than `few` of the passages that the filter lets through, or all if they are fewer."""
    if vectors.index_rows > _MOST_LOOKED_THROUGH and not _is_looked_up(narrowing):
        return f"SELECT NULL::uuid AS chunk_id FROM generate_series(0, {how.few})", []  # noqa: S608  a number of ours
    conditions, values = narrowing.conditions()
    text = f"""
        SELECT l.chunk_id FROM vectorstore_chunklookup l {narrowing.document()}
        WHERE l.collection_id = %s AND {conditions} LIMIT {how.few + 1}"""  # noqa: S608  made of our own parts
    return text, [vectors.collection_id, *values]


def _is_looked_up(narrowing: Narrowing) -> bool:
    """Whether PostgreSQL finds the passages without looking at each."""
    return bool(narrowing.documents) or (narrowing.where is not None and _has_an_index(narrowing.where))


def _has_an_index(where: Filter) -> bool:
    match where:
        case filters.Eq() | filters.In():
            return True
        case filters.Contains():
            return not isinstance(where.value, str)
        case filters.And():
            return any(_has_an_index(part) for part in where.parts)
        case filters.Or():
            return all(_has_an_index(part) for part in where.parts)
    return False
