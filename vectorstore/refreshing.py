"""Documents' metadata that changed, told to the stores outside PostgreSQL that filter by it.

PostgreSQL has the new metadata with the commit, and searches go by it at once: as long as a set has something that its
store was not told of, the store is asked without a filter (vectorstore.outside). The rows of StaleMetadata last until
the store has taken what they stand for, so that a store which is away is told later.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from kernel import database
from kernel.errors import ChainError
from vectorstore import rows
from vectorstore.backends import Filtering, backend
from vectorstore.models import Chunk, Document, Garbage, SetState, StaleMetadata
from vectorstore.values import SetInfo

logger = logging.getLogger(__name__)

#: Documents that are claimed at once, and how often one run does so.
_MOST = 50
_ROUNDS = 20
#: Longer than telling one takes. What fails is due again after it.
_LEASE = timedelta(minutes=2)


@dataclass(frozen=True, kw_only=True)
class _Claim:
    row_id: UUID
    change: UUID
    document_id: UUID
    vectors: SetInfo


async def refresh() -> int:
    """Tell what is due; how many documents are done. A backend that fails is left alone for the rest of the run."""
    done, away = 0, set[str]()
    for _ in range(_ROUNDS):
        claimed = await database.run(_claim)
        if not claimed:
            break
        for each in claimed:
            if each.vectors.backend in away:
                continue
            try:
                await _tell(each)
            except ChainError as error:
                away.add(each.vectors.backend)
                logger.warning("action=metadata_kept backend=%s code=%s", each.vectors.backend, error.code)
            else:
                done += await database.run(_settle, each)
    return done


def _claim() -> list[_Claim]:
    """What nobody else works on. A set that is being filled waits: its filler may have read the old metadata."""
    due = StaleMetadata.objects.filter(lease_expires_at__lte=Now(), vector_set__state=SetState.ACTIVE)
    with transaction.atomic():
        locked = due.order_by("lease_expires_at").select_for_update(of=("self",), skip_locked=True)
        found = list(locked.select_related("vector_set")[:_MOST])
        StaleMetadata.objects.filter(id__in=[row.id for row in found]).update(lease_expires_at=Now() + _LEASE)
    return [
        _Claim(row_id=row.id, change=row.change, document_id=row.document_id, vectors=rows.set_info(row.vector_set))
        for row in found
    ]


async def _tell(ours: _Claim) -> None:
    vectors = ours.vectors
    # The store's package may be imported for the first time.
    store = await asyncio.to_thread(backend, vectors.backend, vectors.workspace_id)
    if not isinstance(store, Filtering):
        return
    metadata = await database.run(_metadata, ours.document_id)
    await store.describe(vectors, metadata)
    await database.run(_clean, vectors, list(metadata))


def _metadata(document_id: UUID) -> dict[UUID, dict[str, Any]]:
    """Each chunk's, as its filters see it."""
    whole = Document.objects.filter(id=document_id).values_list("metadata", flat=True).first() or {}
    chunks = Chunk.objects.filter(document_id=document_id).order_by("position").values_list("id", "metadata")
    return {chunk_id: whole | own for chunk_id, own in chunks}


def _clean(vectors: SetInfo, chunk_ids: list[UUID]) -> None:
    """What was deleted while it was told may have been written once more."""
    living = set(Chunk.objects.filter(id__in=chunk_ids).values_list("id", flat=True))
    gone = [each for each in chunk_ids if each not in living]
    if gone:
        Garbage.objects.create(backend=vectors.backend, set_id=vectors.id, chunk_ids=gone, lease_expires_at=Now())


def _settle(ours: _Claim) -> bool:
    """Whether it was the newest state that was told; another one is due at once."""
    row = StaleMetadata.objects.filter(id=ours.row_id)
    if row.filter(change=ours.change).delete()[0]:
        return True
    row.update(lease_expires_at=Now())
    return False
