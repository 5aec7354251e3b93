"""Vectors that a backend outside PostgreSQL still holds though their chunks are gone: found by nobody, removed here."""

import logging
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import DurationField, ExpressionWrapper, F, Value
from django.db.models.functions import Greatest, Least, Now

from kernel import database
from kernel.errors import ChainError
from vectorstore.backends import backend
from vectorstore.models import Chunk, Garbage
from vectorstore.values import SetInfo, Space

logger = logging.getLogger(__name__)

#: Rows that one run takes at most; the schedule brings the next one.
_MOST = 100
_LEASE = timedelta(minutes=5)
_SHORTEST, _LONGEST = timedelta(minutes=1), timedelta(hours=6)
#: The set's row may be gone, and with it whose it was; a backend knows it by its id.
_NOBODY = UUID(int=0)


async def collect() -> int:
    """Remove what is due; how many rows are done. A backend that fails is left alone for the rest of the run."""
    done, away = 0, set[str]()
    for row in await database.run(_claimed):
        if row.backend in away:
            continue
        try:
            await _remove(row)
        except ChainError as error:
            away.add(row.backend)
            logger.warning("action=garbage_kept backend=%s code=%s", row.backend, error.code)
        else:
            await database.run(Garbage.objects.filter(id=row.id).delete)
            done += 1
    return done


def _claimed() -> list[Garbage]:
    """What nobody else works on. Whatever fails is due again after as long as it has waited already."""
    age = ExpressionWrapper(Now() - F("created_at"), output_field=DurationField())
    pause = Greatest(Value(_LEASE), Least(Greatest(age, Value(_SHORTEST)), Value(_LONGEST)))
    with transaction.atomic():
        due = Garbage.objects.filter(lease_expires_at__lte=Now()).order_by("lease_expires_at")
        rows = list(due.select_for_update(skip_locked=True)[:_MOST])
        Garbage.objects.filter(id__in=[row.id for row in rows]).update(
            lease_expires_at=ExpressionWrapper(Now() + pause, output_field=Garbage._meta.get_field("lease_expires_at"))
        )
    return rows


async def _remove(row: Garbage) -> None:
    vectors = SetInfo(
        id=row.set_id,
        workspace_id=_NOBODY,
        collection_id=_NOBODY,
        backend=row.backend,
        space=Space(model="", dimension=0),
    )
    store = backend(row.backend, _NOBODY)
    if not row.chunk_ids:
        await store.drop(vectors)
        return
    # A row that was written ahead of a swap outlives its lease if the swap takes long: then its chunks are there.
    living = await database.run(_living, row.chunk_ids)
    await store.remove(vectors, [each for each in row.chunk_ids if each not in living])


def _living(chunk_ids: Sequence[UUID]) -> set[UUID]:
    return set(Chunk.objects.filter(id__in=chunk_ids).values_list("id", flat=True))
