"""The answer cache `semantic`: a question that means the same is given the same answer, within one workspace.

Near is not the same, so everything beside the question's own words must be equal: the model, the prompt, the history,
and the passages, word for word, so that an answer never cites what this question did not find. Numbers in the question
must be equal too: "the X200" and "the X300" are near neighbours to every embedding model, and different things. So are
"may I" and "may I not": of the most common languages here the words that negate count as numbers do.
"""

import re
import unicodedata
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any

from django.db import transaction
from django.db.models import Case, FloatField, Value, When
from django.db.models.functions import Now
from pgvector.django import CosineDistance

from kernel import database
from kernel.caches import Tally
from kernel.text import storable
from llm.answer_cache import Answer, Request, Target, may_be_kept
from llm.embeddings.embedder import Embedder, Vector, embedder
from vectorstore.models import SemanticAnswer

#: Numbers and negations: what turns a question into another one, though its vector hardly moves.
_TURNS = re.compile(r"\d+|n['\u2019]t\b|\b(?:not?|never|without|nicht|nie|ohne|kein\w*|ne|pas|jamais|sans|sin|nunca)\b")
#: What stands in the place of the question; no stored text has it, for it can't be stored.
_PLACE = "\0question\0"


class SemanticCache:
    """Made with a workflow's CacheOptions as a dict."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._ttl = timedelta(seconds=config["ttl"])
        self._farthest = 1 - config["threshold"]

    async def find(self, request: Request) -> Answer | None:
        known = embedder()
        scopes = {_scope(request, target, known): target for target in request.targets}
        vector = await known.query(storable(request.question))
        found = await database.run(_find, request, scopes, vector, self._farthest)
        _tally.count(hit=found is not None)
        return found

    async def keep(self, request: Request, answer: Answer) -> None:
        known = embedder()
        # Remembered since `find`.
        vector = await known.query(storable(request.question))
        await database.run(_keep, request, answer, _scope(request, answer.target, known), vector, self._ttl)


_tally = Tally("semantic_answers")


def create(config: dict[str, Any]) -> SemanticCache:
    return SemanticCache(config)


def _scope(request: Request, target: Target, known: Embedder) -> str:
    """What must be equal: everything that the answer depends on but the words of the question."""
    space = (known.model, known.dimension)
    return request.digest(target, space, _turns(request.question), messages=_without_question(request))


def _turns(question: str) -> list[str]:
    return sorted(_TURNS.findall(unicodedata.normalize("NFKC", question).casefold()))


def _without_question(request: Request) -> list[dict[str, Any]]:
    """The messages with a mark in place of the question, where it stands last in the last one of the user.

    If it does not stand there, they stay as they are: then only the very same messages have this scope.
    """
    messages = [dict(message) for message in request.messages]
    last = next((message for message in reversed(messages) if message["role"] == "human"), None)
    if last is not None and isinstance(last["content"], str) and request.question:
        before, found, after = last["content"].rpartition(request.question)
        if found:
            last["content"] = f"{before}{_PLACE}{after}"
    return messages


def _find(request: Request, scopes: Mapping[str, Target], vector: Vector, farthest: float) -> Answer | None:
    # Other scopes may hold vectors of other lengths, which can't be compared: the condition comes first in any plan.
    near = Case(
        When(scope__in=list(scopes), then=CosineDistance("embedding", vector)),
        default=Value(None),
        output_field=FloatField(),
    )
    rows = SemanticAnswer.objects.filter(
        workspace_id=request.workspace_id, scope__in=list(scopes), expires_at__gt=Now()
    )
    row = rows.annotate(distance=near).filter(distance__lte=farthest).order_by("distance", "-updated_at").first()
    if row is None:
        return None
    return Answer(
        target=scopes[row.scope], text=row.text, input_tokens=row.input_tokens, output_tokens=row.output_tokens
    )


def _keep(request: Request, answer: Answer, scope: str, vector: Vector, ttl: timedelta) -> None:
    row = SemanticAnswer(
        workspace_id=request.workspace_id,
        workflow_id=request.workflow_id,
        scope=scope,
        question_hash=sha256(request.question.encode(errors="surrogatepass")).hexdigest(),
        embedding=vector,
        text=answer.text,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        document_ids=list(request.document_ids),
        expires_at=Now() + ttl,
    )
    with transaction.atomic():
        if may_be_kept(request):
            _write(row)


def _write(row: SemanticAnswer) -> None:
    SemanticAnswer.objects.bulk_create(
        [row],
        update_conflicts=True,
        unique_fields=["workspace", "scope", "question_hash"],
        update_fields=[
            "embedding",
            "text",
            "input_tokens",
            "output_tokens",
            "document_ids",
            "expires_at",
            "updated_at",
        ],
    )
