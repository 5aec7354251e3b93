"""For how long vectors are kept for texts that come again, and how many: EMBEDDING_CACHE_DAYS, EMBEDDING_CACHE_ROWS."""

from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from django.db.models.functions import Now

from kernel import database
from tests.vectorstore.conftest import CountingEmbedder, new_workspace
from vectorstore import cached_embeddings
from vectorstore.models import CachedEmbedding
from vectorstore.scope import Scope
from vectorstore.tasks import prune_cached_embeddings

pytestmark = pytest.mark.django_db(transaction=True)

TEXTS = [f"text {number}" for number in range(4)]


@pytest.fixture
def keeping(settings: Any) -> Any:
    def keep(**options: int) -> None:
        given = settings.DJANGO_CHAIN
        settings.DJANGO_CHAIN = given | {"VECTOR_STORE": given.get("VECTOR_STORE", {}) | options}

    return keep


async def embedded(workspace_id: UUID, embedder: CountingEmbedder, *texts: str) -> list[str]:
    """Those of `texts` that the model had to be asked for."""
    embedder.embedded = []
    hashes = [_hash(text) for text in texts]
    await cached_embeddings.vectors(Scope(workspace_id), embedder, texts, hashes)
    return embedder.embedded


async def used(workspace_id: UUID, text: str, *, days_ago: int) -> None:
    rows = CachedEmbedding.objects.filter(workspace_id=workspace_id, text_hash=_hash(text))
    assert await database.run(lambda: rows.update(used_at=Now() - timedelta(days=days_ago))) == 1


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


async def test_what_was_not_used_for_so_many_days_is_forgotten_and_what_was_is_kept(
    workspace_id: UUID, embedder: CountingEmbedder, keeping: Any
) -> None:
    keeping(EMBEDDING_CACHE_DAYS=7)
    assert await embedded(workspace_id, embedder, *TEXTS) == TEXTS
    for text, days in zip(TEXTS, (8, 6, 8, 0), strict=True):
        await used(workspace_id, text, days_ago=days)
    assert await embedded(workspace_id, embedder, TEXTS[2]) == []  # used anew
    await database.run(prune_cached_embeddings)
    assert await embedded(workspace_id, embedder, *TEXTS) == [TEXTS[0]]


async def test_of_too_many_the_longest_unused_of_that_workspace_go(
    workspace_id: UUID, embedder: CountingEmbedder, keeping: Any
) -> None:
    keeping(EMBEDDING_CACHE_ROWS=2)
    other = await new_workspace()
    await embedded(workspace_id, embedder, *TEXTS)
    await embedded(other, embedder, *TEXTS[:2])
    for text, days in zip(TEXTS, (1, 3, 2, 4), strict=True):
        await used(workspace_id, text, days_ago=days)
    for text in TEXTS[:2]:
        await used(other, text, days_ago=9)
    await database.run(prune_cached_embeddings)
    assert await embedded(other, embedder, *TEXTS[:2]) == []
    assert await embedded(workspace_id, embedder, *TEXTS) == [TEXTS[1], TEXTS[3]]
