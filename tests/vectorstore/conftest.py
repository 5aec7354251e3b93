"""Workspaces and managers on real PostgreSQL, with the fake embeddings unless a test is about the real ones."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection

from kernel import database
from kernel.conf import Embeddings
from llm.embeddings.embedder import Embedder, Vector
from vectorstore.manager import VectorStoreManager
from vectorstore.values import SourceDocument


class CountingEmbedder(Embedder):
    """The fake model; it remembers what it was asked to embed."""

    def __init__(self, model: str = "words", dimension: int = 64) -> None:
        super().__init__(Embeddings(provider="fake", model=model, dimension=dimension))
        self.embedded: list[str] = []
        self.asked: list[str] = []

    async def query(self, text: str) -> Vector:
        self.asked.append(text)
        return await super().query(text)

    async def documents(self, texts: Sequence[str]) -> list[Vector]:
        self.embedded += texts
        return await super().documents(texts)


async def new_workspace() -> UUID:
    user = await database.run(get_user_model().objects.create_user, f"owner-{uuid4()}")
    workspace: UUID = await database.run(lambda: user.personal_workspace.id)
    return workspace


def document(text: str, *, source: str = "a.md", **options: Any) -> SourceDocument:
    return SourceDocument(source=source, text=text, markdown=True, **options)


@pytest.fixture(scope="module", autouse=True)
def emptied(django_db_setup: None, django_db_blocker: Any) -> None:
    """Tests of servers that ran before in this process leave their rows; here, rows are counted.

    What `migrate` leaves behind, such as permissions, is there again afterwards: other tests need it.
    """
    with django_db_blocker.unblock():
        call_command("flush", verbosity=0, interactive=False)
        connection.close()


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
async def workspace_id() -> UUID:
    return await new_workspace()


@pytest.fixture
def manager(workspace_id: UUID, embedder: CountingEmbedder) -> VectorStoreManager:
    return VectorStoreManager(workspace_id, embedder=embedder)
