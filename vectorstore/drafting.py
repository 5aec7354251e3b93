"""From a text to what is written of it: cut, embedded, and its vectors handed to backends outside PostgreSQL."""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models.functions import Now

from kernel.conf import config
from kernel.ids import new_id
from llm.embeddings.embedder import Embedder, embedder, embedder_of
from vectorstore import cached_embeddings, web_addresses
from vectorstore.backends import backend
from vectorstore.cached_embeddings import Progress
from vectorstore.errors import EmbeddingMismatch
from vectorstore.models import Garbage
from vectorstore.rows import BESIDE
from vectorstore.scope import Scope
from vectorstore.values import LONGEST_TITLE, CollectionInfo, Draft, Entry, Piece, SetInfo, SourceDocument, Space

if TYPE_CHECKING:
    from vectorstore.splitting import Passage

#: How long a swap may take until what was written for it counts as left over.
_SWAP = timedelta(hours=1)

EmbedderOf = Callable[[CollectionInfo, SetInfo], Embedder]


async def draft(
    scope: Scope,
    into: CollectionInfo,
    document: SourceDocument,
    *,
    embedder_of: EmbedderOf,
    progress: Progress | None = None,
) -> Draft:
    """Cut and embed a text for each of the collection's sets. Vectors that don't live beside the rows are written now,
    under ids that nothing knows yet; the row that calls them garbage goes with the swap that makes them known.
    """
    # Imports LangChain's splitters: on first use, not at start-up.
    from vectorstore.splitting import split, title_of  # noqa: PLC0415

    options = config().vector_store
    passages = await asyncio.to_thread(
        split, document.text, markdown=document.markdown, size=options.chunk_size, overlap=options.chunk_overlap
    )
    heading = document.markdown and title_of(document.text)
    title = document.title or heading or web_addresses.without_query(document.source)
    texts = [embedded_text(title, passage.headings, passage.text) for passage in passages]
    hashes = [sha256(text.encode()).hexdigest() for text in texts]
    sets = [each for each in (into.active, into.building) if each is not None]
    vectors = {
        each.id: await cached_embeddings.vectors(scope, embedder_of(into, each), texts, hashes, progress)
        for each in sets
    }
    pieces = [
        _piece(document, passage, hashes[n], {of: made[n] for of, made in vectors.items()})
        for n, passage in enumerate(passages)
    ]
    made = Draft(
        document=document,
        title=title[:LONGEST_TITLE],
        content_hash=sha256(document.text.encode()).hexdigest(),
        pieces=pieces,
    )
    for each in sets:
        if each.backend != BESIDE and pieces:
            await _write_outside(scope, each, made)
    return made


def embedded_text(title: str, headings: Sequence[str], text: str) -> str:
    """What is embedded of a passage.

    The title and the headings, too: "the warranty of the X200" often names what the passage doesn't.
    """
    return f"{' > '.join(dict.fromkeys((title, *headings)))}\n\n{text}"


def embedder_for(into: CollectionInfo, vectors: SetInfo) -> Embedder:
    """The embedding model of a set. Raises EmbeddingMismatch if the settings don't name it."""
    found = embedder_of(vectors.space.model, vectors.space.dimension)
    if found is None:
        raise mismatch(into.name, vectors.space, embedder())
    return found


def mismatch(collection: str, theirs: Space, ours: Embedder) -> EmbeddingMismatch:
    return EmbeddingMismatch(
        f"The collection {collection!r} holds vectors of {theirs.model} ({theirs.dimension} dimensions), but the"
        f" settings name {ours.model} ({ours.dimension}). Set EMBEDDINGS back, add the model to EMBEDDINGS['MODELS'],"
        " or use another collection."
    )


def _piece(document: SourceDocument, passage: "Passage", embedded_hash: str, vectors: dict[UUID, list[float]]) -> Piece:
    return Piece(
        id=new_id(),
        text=passage.text,
        start=passage.start,
        end=passage.end,
        embedded_hash=embedded_hash,
        vectors=vectors,
        metadata={"headings": list(passage.headings)} | _page(document, passage.start),
    )


def _page(document: SourceDocument, start: int) -> dict[str, Any]:
    return {"page": max(1, bisect_right(document.pages, start))} if document.pages else {}


async def _write_outside(scope: Scope, into: SetInfo, made: Draft) -> None:
    # Said first: whatever happens from here on, somebody knows what may be left over.
    garbage = await scope.run(_left_over, into, made)
    made.left_over.append(garbage)
    entries = [
        Entry(
            chunk_id=piece.id,
            vector=piece.vectors[into.id],
            metadata=made.document.metadata | piece.metadata,
        )
        for piece in made.pieces
    ]
    await backend(into.backend, scope.workspace_id).add(into, entries)


def _left_over(scope: Scope, into: SetInfo, made: Draft) -> Any:
    row = Garbage.objects.create(
        backend=into.backend,
        set_id=into.id,
        chunk_ids=[piece.id for piece in made.pieces],
        lease_expires_at=Now() + _SWAP,
    )
    return row.id
