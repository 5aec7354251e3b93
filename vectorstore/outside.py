"""Searches of the stores outside PostgreSQL: what is left of what they find, and how to ask so that enough is left.

Rights and filters are PostgreSQL's to decide. A filter is handed to a store only to save work: one that knows the
current metadata, and takes filters at all. What passes a filter that it is not handed may be rare among the nearest, so
more is asked for until enough is left; and where few chunks pass, a store that can is asked for these alone.
"""

from collections.abc import Sequence
from uuid import UUID

from django.db import connection

from vectorstore import searching
from vectorstore.backends import Backend, Filtering, Picking
from vectorstore.candidates import Narrowing
from vectorstore.models import StaleMetadata
from vectorstore.scope import Scope
from vectorstore.values import CollectionInfo, Scored, SetInfo

#: Chunks that a store is asked for by their ids.
_FEW = 1000
#: Hits that a store is asked for at most: Pinecone's bound. Before it looks for more than the first number, the chunks
#: that pass are counted.
_MANY, _MOST = 1000, 10_000
_GROWTH = 4


async def nearest(
    scope: Scope, store: Backend, found: CollectionInfo, which: Narrowing, vector: Sequence[float], *, wanted: int
) -> list[Scored]:
    """The `wanted` nearest that the reader may see and that are wanted, or as many as there are."""
    handed = which.where
    if handed is not None and (not isinstance(store, Filtering) or await scope.run(_stale, found.active)):
        handed = None
    # A store that isn't handed all that narrows finds what is near, most of which may not be wanted.
    blind = bool(which) and (handed is None or bool(which.documents))
    few = await scope.run(_passing, found, which) if blind else None
    asked = wanted
    while True:
        if few == []:
            return []
        if few is not None and isinstance(store, Picking):
            scored = await store.search_among(found.active, vector, few, k=wanted)
            return await _passed(scope, found, which, scored)
        scored = await store.search(found.active, vector, k=asked, where=handed)
        passed = await _passed(scope, found, which, scored)
        enough = wanted if few is None else min(wanted, len(few))
        if len(passed) >= enough or len(scored) < asked or asked >= _MOST:
            return passed[:wanted]
        if which and not blind and asked >= _MANY:
            blind, few = True, await scope.run(_passing, found, which)
        asked = min(asked * _GROWTH, _MANY if asked < _MANY else _MOST)


async def _passed(scope: Scope, found: CollectionInfo, which: Narrowing, scored: Sequence[Scored]) -> list[Scored]:
    return await scope.run(searching.passing, found, which, scored) if scored else []


def _stale(scope: Scope, vectors: SetInfo) -> bool:
    """Whether the store is still to be told of metadata that changed."""
    return StaleMetadata.objects.filter(vector_set_id=vectors.id).exists()


def _passing(scope: Scope, found: CollectionInfo, which: Narrowing) -> list[UUID] | None:
    """The chunks of the collection that are wanted, if they are few."""
    conditions, values = which.conditions()
    text = f"""
        SELECT l.chunk_id FROM vectorstore_chunklookup l {which.document()}
        WHERE l.collection_id = %s AND {conditions} LIMIT %s"""  # noqa: S608  made of our own parts
    with connection.cursor() as cursor:
        cursor.execute(text, [found.id, *values, _FEW + 1])
        ids = [chunk_id for (chunk_id,) in cursor.fetchall()]
    return ids if len(ids) <= _FEW else None
