"""Every backend, one after the other, and sets with chunks to put vectors of into them.

Chroma is the real thing, in a folder and as its server; Pinecone is a local stand-in that the real SDK talks to.
"""

import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from accounts.models import Workspace
from kernel import database
from llm import aliases
from llm.registry import vector_stores
from tests.support import vector_stores as support
from tests.support.vector_stores import DIMENSION, NAMES, InMemory, Stores
from tests.vectorstore.conftest import CountingEmbedder, new_workspace
from vectorstore.backends import Backend, backend
from vectorstore.filters import parse
from vectorstore.manager import VectorStoreManager
from vectorstore.models import Chunk, Collection, Document, VectorSet
from vectorstore.values import Entry, SetInfo, Space


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with support.started(tmp_path_factory.mktemp("stores")) as made:
        yield made


@pytest.fixture(params=NAMES)
async def store(
    request: pytest.FixtureRequest, stores: Stores, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """The name of the backend that new collections get."""
    support.with_key(monkeypatch)
    vector_stores.add("custom", support.create)
    name, options = stores.options(request.param)
    settings.DJANGO_CHAIN = support.settings_for(settings.DJANGO_CHAIN, name, options)
    yield name
    InMemory.away = False
    vector_stores.remove("custom")
    # Connections belong to this test's event loop.
    await aliases.close()


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder(dimension=DIMENSION)


@dataclass
class Made:
    """A set with chunks to put vectors of into it."""

    info: SetInfo
    backend: Backend
    chunks: list[UUID]
    document_id: UUID

    def entry(self, n: int, vector: list[float], **metadata: Any) -> Entry:
        return Entry(chunk_id=self.chunks[n], vector=vector, metadata=metadata)

    async def found(self, vector: list[float], *, k: int = 10, where: Any = None) -> list[int]:
        hits = await self.backend.search(self.info, vector, k=k, where=None if where is None else parse(where))
        return [self.chunks.index(hit.chunk_id) for hit in hits]


async def new_set(store: str, workspace_id: UUID | None = None, *, chunks: int = 12) -> Made:
    workspace = workspace_id or await new_workspace()

    def rows() -> tuple[VectorSet, UUID, list[UUID]]:
        collection = Collection.objects.create(workspace_id=workspace, name=str(uuid4()))
        made = VectorSet.objects.create(
            workspace_id=workspace, collection=collection, backend=store, embedding_model="m", dimension=DIMENSION
        )
        doc = Document.objects.create(workspace_id=workspace, collection=collection, title="t", source="s")
        texts = [
            Chunk(workspace_id=workspace, collection=collection, document=doc, position=n, text="x", start=0, end=1)
            for n in range(chunks)
        ]
        return made, doc.id, [each.id for each in Chunk.objects.bulk_create(texts)]

    row, document_id, ids = await database.run(rows)
    info = SetInfo(
        id=row.id,
        workspace_id=workspace,
        collection_id=row.collection_id,
        backend=store,
        space=Space(model="m", dimension=DIMENSION),
    )
    return Made(info, backend(store, workspace), ids, document_id)


def at(degrees: float) -> list[float]:
    """A vector of length 2 in a plane: the cosine similarity to `at(0)` is the angle's cosine."""
    angle = math.radians(degrees)
    return [2 * math.cos(angle), 2 * math.sin(angle), *[0.0] * (DIMENSION - 2)]


async def filled(store: str, count: int = 12) -> Made:
    made = await new_set(store)
    await made.backend.add(made.info, [made.entry(n, at(10 * n)) for n in range(count)])
    return made


async def owner(manager: VectorStoreManager) -> int:
    def look() -> int:
        found: int = Workspace.objects.get(id=manager.scope.workspace_id).personal_of_id
        return found

    return await database.run(look)
