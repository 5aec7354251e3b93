"""What collections hold, and whether the stores of their vectors answer."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from django.db.models import Count, Sum

from kernel.conf import config as settings
from kernel.errors import ChainError, StoreUnavailable
from vectorstore import rows
from vectorstore.backends import backend
from vectorstore.models import ChunkVector, DocumentState
from vectorstore.scope import Scope
from vectorstore.values import CollectionInfo, CollectionStats, SetInfo, StoreHealth

logger = logging.getLogger(__name__)

#: Seconds that a store may take to say that it lives, or what it holds.
_WITHIN = 3.0
#: Stores that are asked at once.
_AT_ONCE = 8
#: Seconds for which an answer to `default_store` holds.
_FRESH = 5.0
#: A store is asked for whether it lives; that doesn't depend on whose.
_NOBODY = UUID(int=0)


def collections(scope: Scope, *, name: str | None = None, limit: int) -> list[CollectionInfo]:
    """The reader's collections by their names, or the one of that name: two queries."""
    found = scope.collections.order_by("name")
    if name is not None:
        found = found.filter(name=name)
    return rows.infos(list(found[:limit]))


def held(scope: Scope, found: Sequence[CollectionInfo]) -> list[CollectionStats]:
    """What these collections hold, `vectors` only where they are ours: two queries, however many there are."""
    ids = [each.id for each in found]
    of_state = scope.documents.filter(collection_id__in=ids).order_by().values("collection_id", "state")
    states: dict[UUID, dict[str, int]] = defaultdict(lambda: dict.fromkeys(DocumentState.values, 0))
    sums: dict[UUID, list[int]] = defaultdict(lambda: [0, 0])
    for row in of_state.annotate(number=Count("id"), chunks=Sum("chunk_count"), bytes=Sum("size")):
        states[row["collection_id"]][row["state"]] = row["number"]
        sums[row["collection_id"]][0] += row["chunks"]
        sums[row["collection_id"]][1] += int(row["bytes"])
    ours = [each.active.id for each in found if each.active.backend == rows.BESIDE]
    counted = ChunkVector.objects.filter(vector_set_id__in=ours).values("vector_set_id").annotate(number=Count("id"))
    vectors = dict.fromkeys(ours, 0) | {row["vector_set_id"]: row["number"] for row in counted}
    return [
        CollectionStats(
            collection_id=each.id,
            name=each.name,
            states=states[each.id],
            chunks=sums[each.id][0],
            bytes=sums[each.id][1],
            vectors=vectors.get(each.active.id),
            space=each.active.space,
            backend=each.active.backend,
            index=each.active.index,
            index_rows=each.active.index_rows,
        )
        for each in found
    ]


async def with_vectors(found: Sequence[CollectionInfo], stats: Sequence[CollectionStats]) -> list[CollectionStats]:
    """With how many vectors the stores outside PostgreSQL hold; None stays for one that doesn't answer."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def counted(vectors: SetInfo, before: CollectionStats) -> CollectionStats:
        if vectors.backend == rows.BESIDE:
            return before
        async with places:
            try:
                store = await asyncio.to_thread(backend, vectors.backend, vectors.workspace_id)
                async with asyncio.timeout(_WITHIN):
                    return replace(before, vectors=(await store.stats(vectors)).vectors)
            except Exception as error:  # noqa: BLE001  a registered store may raise anything; the figures are told without it
                logger.warning("action=vector_store_failed backend=%s error=%s", vectors.backend, type(error).__name__)
                return before

    return list(await asyncio.gather(*(counted(of.active, each) for of, each in zip(found, stats, strict=True))))


def stores(scope: Scope) -> list[str]:
    """Where the vectors of the reader's collections are, and where those of new ones go (a unit for Scope.run)."""
    used = scope.vector_sets.order_by().values_list("backend", flat=True).distinct()
    return sorted({*used, settings().vector_store.backend})


async def health(name: str, workspace_id: UUID = _NOBODY) -> StoreHealth:
    """Whether that store answers, and within a few seconds. Never raises: what is wrong is told."""
    began = monotonic()
    try:
        # Its package is imported with the first use, which takes its time and isn't the store's fault.
        store = await asyncio.to_thread(backend, name, workspace_id)
        began = monotonic()
        async with asyncio.timeout(_WITHIN):
            await store.health()
    except ChainError as error:
        return StoreHealth(backend=name, ok=False, code=error.code, message=error.message, seconds=monotonic() - began)
    except Exception as error:  # noqa: BLE001  a registered store may raise anything; the one who asks is told that it failed
        if not isinstance(error, TimeoutError):
            logger.warning("action=vector_store_failed backend=%s error=%s", name, type(error).__name__)
        away = StoreUnavailable("The vector store does not answer in time; try again shortly.")
        return StoreHealth(backend=name, ok=False, code=away.code, message=away.message, seconds=monotonic() - began)
    return StoreHealth(backend=name, ok=True, seconds=monotonic() - began)


@dataclass(eq=False)
class _Look:
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    seen: StoreHealth | None = None
    at: float = 0.0


_looks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Look] = WeakKeyDictionary()


async def default_store() -> StoreHealth:
    """Of the store that new collections' vectors go to. It is asked every few seconds at most, whoever probes us."""
    look = _looks.setdefault(asyncio.get_running_loop(), _Look())
    name: Any = settings().vector_store.backend
    async with look.asking:
        if look.seen is None or look.seen.backend != name or monotonic() - look.at > _FRESH:
            look.seen, look.at = await health(name), monotonic()
        return look.seen
