"""Messages' vectors as rows: which are missing, keeping them, and the messages near to a question.

The search is exact, within one session. A session whose past never changed is one branch; in any other the branch is
walked up. Sync functions: units of work for kernel.database.run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from django.apps import apps
from django.db import connection, transaction
from django.db.models import Exists, OuterRef
from pgvector import Vector

from memory import jobs, truth
from memory.jobs import Claim
from memory.models import MessageVector
from memory.summaries import saying, table

#: Messages embedded and kept together.
BATCH = 64
#: Characters of a message that are embedded: a vector of more says less.
MAX_CHARS = 4000


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
        "limit": asked.limit,
        "remembered": list(truth.REMEMBERED),
    }
    with connection.cursor() as cursor:
        cursor.execute(_NEAR.format(messages=table("ChatHistory")), values)
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


# The distance stands in the outer query alone: vectors of another model, which can't be compared, are gone by then.
_NEAR = """
WITH RECURSIVE walk AS (
    SELECT id, parent_id FROM {messages} WHERE id = %(leaf)s AND session_id = %(session)s AND %(branched)s
  UNION ALL
    SELECT above.id, above.parent_id FROM walk JOIN {messages} AS above ON above.id = walk.parent_id
), comparable AS MATERIALIZED (
    SELECT message_id, embedding FROM memory_messagevector
    WHERE session_id = %(session)s AND embedding_model = %(model)s AND dimension = %(dimension)s
        AND "order" < %(below)s AND (NOT %(branched)s OR message_id IN (SELECT id FROM walk))
), nearest AS (
    SELECT message_id, embedding <=> %(vector)s::vector AS distance FROM comparable
    ORDER BY distance, message_id LIMIT %(limit)s
)
SELECT said."order", said.role, said.content, 1 - nearest.distance
FROM nearest JOIN {messages} AS said ON said.id = nearest.message_id
WHERE NOT said.is_deleted AND said.content <> '' AND said.status = ANY(%(remembered)s)
ORDER BY nearest.distance, nearest.message_id
"""
