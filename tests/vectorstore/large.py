"""A large collection, for what goes another way there: passages that lie in clusters, with a bound on what is large."""

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID
from zlib import crc32

import numpy as np
from django.db import connection

from kernel.conf import Embeddings
from kernel.ids import new_id
from llm.embeddings.embedder import Embedder
from vectorstore.models import Chunk, ChunkLookup, ChunkVector, Document, DocumentState
from vectorstore.values import CollectionInfo

DIMENSION, CLUSTERS, LARGE = 64, 60, 3000
_CENTRES = np.random.default_rng(5).standard_normal((CLUSTERS, DIMENSION))
EMBEDDINGS = {
    "PROVIDER": "fake",
    "MODEL": "placed",
    "DIMENSION": DIMENSION,
    "MODELS": {"wide": {"PROVIDER": "fake", "MODEL": "wide", "DIMENSION": 96}},
}


def place(text: str) -> list[float]:
    """`c7 …` lies near the centre of cluster 7; each text has a place of its own."""
    found = re.search(r"\bc(\d+)\b.*", text)
    assert found, text
    noise = np.random.default_rng(crc32(found[0].encode())).standard_normal(DIMENSION)
    return [float(each) for each in _CENTRES[int(found[1]) % CLUSTERS] + 0.7 * noise]


class Placed(Embedder):
    def __init__(self) -> None:
        super().__init__(Embeddings(provider="fake", model="placed", dimension=DIMENSION))

    async def query(self, text: str) -> list[float]:
        return place(text)

    async def documents(self, texts: Sequence[str]) -> list[list[float]]:
        return [place(text) for text in texts]


def configure(settings: Any, **values: Any) -> None:
    ours = {"VECTOR_STORE": settings.DJANGO_CHAIN.get("VECTOR_STORE", {}) | values, "EMBEDDINGS": EMBEDDINGS}
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | ours


def fill(into: CollectionInfo, count: int = LARGE, *, each: int = 10) -> None:
    """Documents of ten passages from anywhere. `n` numbers a document: metadata picks one in a hundred, or a half."""
    owner = {"workspace_id": into.workspace_id, "collection_id": into.id}
    texts = [f"c{number % CLUSTERS} m{number}" for number in range(count)]
    vectors = [place(text) for text in texts]
    documents = [
        Document(
            **owner,
            id=new_id(),
            title=f"d{n}",
            source=f"d{n}.md",
            metadata={"hundredth": n % 100, "half": n % 2, "n": n},
            chunk_count=each,
            content_hash=str(n),
            state=DocumentState.READY,
        )
        for n in range(count // each)
    ]
    chunks = [
        Chunk(
            **owner,
            document=documents[number // each],
            id=new_id(),
            position=number % each,
            text=text,
            start=0,
            end=len(text),
        )
        for number, text in enumerate(texts)
    ]
    Document.objects.bulk_create(documents)
    Chunk.objects.bulk_create(chunks)
    ChunkLookup.objects.bulk_create(
        ChunkLookup(**owner, chunk=chunk, document=chunk.document, terms="", metadata=chunk.document.metadata)
        for chunk in chunks
    )
    ChunkVector.objects.bulk_create(
        ChunkVector(vector_set_id=into.active.id, chunk=chunk, embedding=vector)
        for chunk, vector in zip(chunks, vectors, strict=True)
    )
    with connection.cursor() as cursor:
        for table in ("chunkvector", "chunklookup"):
            cursor.execute(f"ANALYZE vectorstore_{table}")


def name_of(set_id: UUID) -> str:
    return f"vectorstore_hnsw_{set_id.hex}"
