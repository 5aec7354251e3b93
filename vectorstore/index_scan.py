"""Asking a set's approximate index: how far it is scanned, and the SQL. Why so: docs/decisions/0010.

Without a filter, what is nearest by the index is put in order by its whole vectors. A filter is tried on the nearest
ones first: a wide one leaves enough of them. Else the passages that it lets through are counted, up to a bound: few are
compared exactly, as in a set without an index; many are looked for further on in the index. PostgreSQL does one of the
three in one statement, by what it has counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, Final

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


def depth(vectors: SetInfo, limit: int) -> Depth:
    """The policy. With more passages than `few`, going on in the index takes less time than comparing them all, and
    finds nearly all: the first grows with their number, the second falls with it.
    """
    ef, wanted = min(max(_LEAST_EF, 4 * limit), _MOST_EF), limit + max(5, limit // 2)
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


def prepare(cursor: Any, vectors: SetInfo, limit: int) -> None:
    """Tell PostgreSQL how to scan, until the transaction ends; one statement, none for a set without an index."""
    if not is_ready(vectors):
        return
    settings = {
        "hnsw.ef_search": depth(vectors, limit).ef,
        # Goes on where what was found is deleted or left out. The order is made good by the whole vectors.
        "hnsw.iterative_scan": "relaxed_order",
        "hnsw.max_scan_tuples": _MOST_SCANNED,
        "hnsw.scan_mem_multiplier": _MEMORY,
        # Nothing else gives an order unsorted. The planner doesn't know what it costs to read and compare long vectors.
        "enable_sort": "off",
        # Compiling takes longer than the search: the estimate knows nothing of the branches that are not taken.
        "jit": "off",
    }
    calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
    cursor.execute(f"SELECT {calls}")


def nearest(vectors: SetInfo, vector: Sequence[float], *, limit: int, narrowing: Narrowing) -> Sql:
    """`chunk_id` and cosine `distance` of the nearest of a set in PostgreSQL: by its index, if there is one."""
    if not is_ready(vectors):
        return candidates.nearest(vectors, vector, limit=limit, narrowing=narrowing)
    given, how = candidates.as_text(vector), depth(vectors, limit)
    found, values = _filtered(vectors, given, how, narrowing) if narrowing else _ordered(vectors, given, how.wanted)
    text = f"""
        SELECT v.chunk_id, {candidates.distance(vectors)} AS distance FROM ({found}) v
        WHERE EXISTS (SELECT FROM vectorstore_vectorset s WHERE s.id = %s AND s.workspace_id = %s)
        ORDER BY distance LIMIT %s"""  # noqa: S608  made of our own parts
    return text, [given, *values, vectors.id, vectors.workspace_id, limit]


def _ordered(vectors: SetInfo, given: str, count: int, condition: str = "true", values: Sequence[Any] = ()) -> Sql:
    """The first `count` in the index's order. The set's id stands in the text: only a constant proves that the index,
    which holds this set alone, has all that is asked for.
    """
    kind = f"{vectors.index_type}({vectors.space.dimension})"
    text = f"""
        SELECT v.chunk_id, v.embedding FROM vectorstore_chunkvector v
        WHERE v.vector_set_id = '{vectors.id}' AND {condition}
        ORDER BY v.embedding::{kind} <=> %s::{kind} LIMIT {count}"""  # noqa: S608  made of our own parts
    return text, [*values, given]


def _filtered(vectors: SetInfo, given: str, how: Depth, narrowing: Narrowing) -> Sql:
    """One of three branches; the conditions that hold none of a row's columns are tested once, before a branch runs."""
    near, near_values = _passing(vectors, given, how, narrowing)
    few, few_values = _counted(vectors, how, narrowing)
    conditions, filter_values = narrowing.conditions()
    # Asked of each row in the index's order, never joined: a join would have PostgreSQL sort the whole set.
    passes = f"""(SELECT count(*) FROM near) < {how.wanted}
        AND ((SELECT count(*) FROM near) >= {how.scarce} OR (SELECT count(*) FROM few) > {how.few}) AND (
        SELECT {conditions} FROM vectorstore_chunklookup l {narrowing.document()} WHERE l.chunk_id = v.chunk_id)"""  # noqa: S608  made of our own parts
    further, further_values = _ordered(vectors, given, how.further, passes, filter_values)
    text = f"""
        WITH near AS MATERIALIZED ({near}),
        few AS MATERIALIZED (SELECT chunk_id FROM ({few}) l WHERE (SELECT count(*) FROM near) < {how.scarce})
        SELECT chunk_id, embedding FROM near WHERE (SELECT count(*) FROM near) >= {how.wanted}
        UNION ALL
        SELECT v.chunk_id, v.embedding
        FROM few JOIN vectorstore_chunkvector v ON v.vector_set_id = '{vectors.id}' AND v.chunk_id = few.chunk_id
        WHERE (SELECT count(*) FROM few) <= {how.few}
        UNION ALL
        ({further})"""  # noqa: S608  made of our own parts
    return text, [*near_values, *few_values, *further_values]


def _passing(vectors: SetInfo, given: str, how: Depth, narrowing: Narrowing) -> Sql:
    """Of the nearest, those that the filter lets through. Some documents of a large set are too few to try it."""
    if narrowing.documents:
        return "SELECT NULL::uuid AS chunk_id, NULL::vector AS embedding WHERE false", []
    nearest, values = _ordered(vectors, given, how.ef)
    joins, filter_values = narrowing.joined("v.chunk_id")
    return f"SELECT v.chunk_id, v.embedding FROM ({nearest}) v {joins}", [*values, *filter_values]  # noqa: S608  made of our own parts


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
