"""Messages' vectors as rows: which are missing, keeping them, and the messages near to a question.

A search costs nearly the same in a session of ten messages and of ten thousand. The first look compares the signs of
vectors' components, which an index holds side by side; the best of it are then compared exactly. Measured with 384
dimensions on PostgreSQL 18: 10 messages 0.3 ms, 1,000 0.8 ms, 10,000 1.8 ms, against 0.2, 0.5 and 19 ms of an exact
search. Of the four nearest among 10,000 real sentences (256 dimensions) it finds 0.99, of the ten nearest 0.97. An HNSW
index over all sessions would look at those of others first, and one for each session is a table with thousands of
indexes.

A session whose past never changed is one branch; of any other, memory.paths knows what is on it. Sync functions: units
of work for kernel.database.run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from django.apps import apps
from django.db import connection, transaction
from django.db.models import Exists, OuterRef
from pgvector import Vector

from memory import jobs, paths, truth
from memory.jobs import Claim
from memory.models import MessageVector
from memory.summaries import saying

#: Messages embedded and kept together.
BATCH = 64
#: Characters of a message that are embedded: a vector of more says less.
MAX_CHARS = 4000
#: The newest messages that a question is compared with: a search has a bound.
NEWEST = 20_000
#: The least that is compared exactly, and how many for each that is wanted; of vectors of fewer dimensions than
#: `_PLENTY`, whose signs say less, more.
_CANDIDATES, _FOR_EACH, _PLENTY = 200, 16, 256


class Near(NamedTuple):
    """An older message; `score` is the cosine similarity to the question."""

    order: int
    role: str
    content: str
    score: float


class Text(NamedTuple):
    id: UUID
    order: int
    content: str


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is searched: the session's messages before `below`, on the branch that ends with `leaf`."""

    session_id: UUID
    leaf: UUID
    epoch: int
    below: int
    vector: Sequence[float]
    model: str
    limit: int
    min_score: float


def near(asked: Asked) -> list[Near]:
    """The nearest messages, best first: one query."""
    values: dict[str, Any] = {
        "session": asked.session_id,
        "leaf": asked.leaf,
        "branched": asked.epoch > 0,
        "below": asked.below,
        "vector": Vector(list(asked.vector)).to_text(),
        "model": asked.model,
        "dimension": len(asked.vector),
        "newest": NEWEST,
        "walked": paths.WALKED,
        "candidates": _candidates(asked),
        "limit": asked.limit,
        "remembered": list(truth.REMEMBERED),
    }
    with connection.cursor() as cursor:
        cursor.execute(_NEAR.format(walk=paths.walk(), messages=truth.table("ChatHistory")), values)
        found = [Near(*row) for row in cursor.fetchall()]
    return [each for each in found if each.score >= asked.min_score]


def missing(session_id: UUID, model: str, dimension: int) -> list[Text]:
    """Up to `BATCH` messages that have no vector of that model yet, the oldest first."""
    have = MessageVector.objects.filter(message_id=OuterRef("id"), embedding_model=model, dimension=dimension)
    found = saying(session_id).filter(~Exists(have)).order_by("order")
    return [
        Text(each, order, content[:MAX_CHARS])
        for each, order, content in found.values_list("id", "order", "content")[:BATCH]
    ]


def keep(mine: Claim, texts: Sequence[Text], vectors: Sequence[Sequence[float]], model: str) -> bool:
    """Keep the vectors of what still says something. False: the job is another worker's by now.

    Deletions lock the session's row, so that one is either seen here, or finds these vectors and takes them along.
    """
    sessions: Any = apps.get_model("chat", "ChatSession").objects
    with transaction.atomic():
        session = sessions.select_for_update(of=("self",)).filter(id=mine.session_id).first()
        if session is None or not jobs.progress(mine):
            return False
        said = set(saying(mine.session_id).filter(id__in=[text.id for text in texts]).values_list("id", flat=True))
        rows = [
            MessageVector(
                workspace_id=mine.workspace_id,
                session_id=mine.session_id,
                message_id=text.id,
                order=text.order,
                embedding=vector,
                embedding_model=model,
                dimension=len(vector),
            )
            for text, vector in zip(texts, vectors, strict=True)
            if text.id in said
        ]
        MessageVector.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["message"],
            update_fields=["embedding", "embedding_model", "dimension", "updated_at"],
        )
    return True


def forget(message_ids: Sequence[UUID]) -> None:
    """In the transaction that deletes the messages."""
    MessageVector.objects.filter(message_id__in=message_ids).delete()


def _candidates(asked: Asked) -> int:
    return max(_CANDIDATES, _FOR_EACH * asked.limit) * max(_PLENTY, len(asked.vector)) // len(asked.vector)


# Vectors of another model may be of another length, of which there is no distance. OFFSET 0: each row is looked up by
# its place. The planner may take a session that has grown since it last counted for a small one, and would read all of
# it for each.
_NEAR = """
{walk}, likely AS MATERIALIZED (
    SELECT "order" FROM memory_messagevector
    WHERE session_id = %(session)s AND "order" < %(below)s AND "order" >= %(below)s - %(newest)s
        AND dimension = %(dimension)s AND (NOT %(branched)s OR "order" <@ (SELECT places FROM path))
    ORDER BY CASE WHEN dimension = %(dimension)s THEN bits <~> binary_quantize(%(vector)s::vector) END
    LIMIT %(candidates)s
), comparable AS MATERIALIZED (
    SELECT message_id, embedding FROM likely CROSS JOIN LATERAL (
        SELECT message_id, embedding, embedding_model, dimension FROM memory_messagevector
        WHERE session_id = %(session)s AND "order" = likely."order" OFFSET 0
    ) AS held
    WHERE embedding_model = %(model)s AND dimension = %(dimension)s
), nearest AS (
    SELECT message_id, embedding <=> %(vector)s::vector AS distance FROM comparable
    ORDER BY distance, message_id LIMIT %(limit)s
)
SELECT said."order", said.role, said.content, 1 - nearest.distance
FROM nearest JOIN {messages} AS said ON said.id = nearest.message_id
WHERE NOT said.is_deleted AND said.content <> '' AND said.status = ANY(%(remembered)s)
ORDER BY nearest.distance, nearest.message_id
"""
