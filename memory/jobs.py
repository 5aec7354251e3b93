"""The job of a session's memory: asked for when a turn ends, claimed by one worker, done again if that dies.

Sync functions: units of work for kernel.database.run, or parts of one. A worker's writes are fenced by its claim.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Now

from kernel.conf import config as settings
from llm import ledger
from memory.exchange import Definition, memory_steps
from memory.models import MemoryJob

#: Seconds that a claim lasts; each success renews it, and what lies between takes less.
LEASE = 120.0
#: Tries without any success in between, after which a job waits for the session's next turn.
MAX_ATTEMPTS = 6
#: Seconds until the second try; each next one waits twice as long.
_BACKOFF = 5.0
_LONGEST = 3600.0
#: Seconds after which a broker is told again of work that nobody has begun.
_TELL_AGAIN = 60.0
_BATCH = 200

REMEMBER = "memory.tasks.remember"

_OWNER = f"{socket.gethostname()[:40]}:{os.getpid()}"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a workflow's memory asks to be made after each turn. Plain JSON, stored with the job."""

    #: Options of the kind that summarises; None: nothing is summarised.
    summary: dict[str, Any] | None = None
    kind: str = "summary"
    #: Messages are embedded.
    vectors: bool = False
    #: What the workflow lets the log keep of texts.
    log_content: str = "full"

    def __bool__(self) -> bool:
        return self.summary is not None or self.vectors

    def as_json(self) -> dict[str, Any]:
        return {"summary": self.summary, "kind": self.kind, "vectors": self.vectors, "log_content": self.log_content}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Needs":
        return cls(**stored)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A job that this worker holds."""

    id: UUID
    workspace_id: UUID
    session_id: UUID
    needs: Needs
    fence: int
    wanted: int


def needs_of(definition: Definition | None) -> Needs:
    """What the memory steps of a workflow, or of several in a list, ask for.

    Of steps that summarise the first one's options hold, of policies for texts the strictest.
    """
    summary, kind, vectors = None, "summary", False
    for step in memory_steps(definition):
        name = step.get("kind") or settings().memory.kind
        if summary is None and name in ("summary", "summary_buffer"):
            summary, kind = dict(step.get("options") or {}), name
        vectors = vectors or name == "recall"
    parts = [definition] if isinstance(definition, Mapping) else definition or ()
    policies = [each.get("log_content") or "full" for each in parts if isinstance(each, Mapping)]
    return Needs(summary=summary, kind=kind, vectors=vectors, log_content=reduce(ledger.stricter, policies, "full"))


def want(session_id: UUID, workspace_id: UUID, needs: Needs) -> None:
    """Ask for a session's memory to be kept up, in the transaction that ends a turn: one query, the first time two.

    A job that waits after a failure goes on waiting; one that was given up begins anew.
    """
    asked = needs.as_json()
    if not MemoryJob.objects.filter(session_id=session_id).update(needs=asked, **_once_more()):
        job = MemoryJob(workspace_id=workspace_id, session_id=session_id, needs=asked)
        job.lease_expires_at = job.sent_at = Now()
        MemoryJob.objects.bulk_create([job], ignore_conflicts=True)


def again(session_id: UUID) -> bool:
    """What was made is out of date: the job is open once more, if there ever was one."""
    # Nobody is told here: the next turn does, or the sweeper.
    return bool(MemoryJob.objects.filter(session_id=session_id).update(**_once_more() | {"sent_at": None}))


def claim(session_id: UUID) -> Claim | None:
    """Take a session's job, unless it is done, waits, or is another worker's."""
    with transaction.atomic():
        free = MemoryJob.objects.filter(session_id=session_id, open=True, lease_expires_at__lte=Now())
        job = free.select_for_update(skip_locked=True, of=("self",)).first()
        if job is None:
            return None
        MemoryJob.objects.filter(id=job.id).update(
            fence=job.fence + 1, attempts=job.attempts + 1, owner=_OWNER, lease_expires_at=_after(LEASE)
        )
    return Claim(
        id=job.id,
        workspace_id=job.workspace_id,
        session_id=job.session_id,
        needs=Needs.of(job.needs),
        fence=job.fence + 1,
        wanted=job.wanted,
    )


def progress(mine: Claim) -> bool:
    """Keep the claim after a success, from which tries are counted anew; False: it is lost.

    In a transaction, nobody else takes the job until it commits.
    """
    return bool(_held(mine).update(lease_expires_at=_after(LEASE), attempts=1))


def later(mine: Claim) -> None:
    """Give the job back undone: whoever is free goes on with it."""
    _held(mine).update(owner="", attempts=0, lease_expires_at=Now(), sent_at=None)


def done(mine: Claim) -> bool:
    """Give the job back; whether it is wanted again already, by a turn that ended meanwhile."""
    ended = {"owner": "", "attempts": 0, "error_code": ""}
    if _held(mine).filter(wanted=mine.wanted).update(open=False, **ended):
        return False
    return bool(_held(mine).update(lease_expires_at=Now(), sent_at=Now(), **ended))


def failed(mine: Claim, code: str, retry_after: float | None = None) -> None:
    """Try again later, or, after too many tries, not before the session's next turn."""
    with transaction.atomic():
        job = _held(mine).select_for_update(of=("self",)).first()
        if job is None:
            return
        pause = max(_BACKOFF * 2 ** (job.attempts - 1), min(retry_after or 0.0, _LONGEST))
        _held(mine).update(
            owner="", error_code=code[:64], lease_expires_at=_after(pause), open=job.attempts < MAX_ATTEMPTS
        )


def overdue() -> Sequence[UUID]:
    """The sessions with work that nobody has begun, as a broker is to be told: each once in a while."""
    untold = Q(sent_at=None) | Q(sent_at__lt=_after(-_TELL_AGAIN)) | Q(sent_at__lt=F("lease_expires_at"))
    with transaction.atomic():
        found = MemoryJob.objects.filter(untold, open=True, lease_expires_at__lte=Now())
        rows = found.order_by("lease_expires_at").select_for_update(skip_locked=True, of=("self",))
        sessions = list(rows.values_list("session_id", flat=True)[:_BATCH])
        MemoryJob.objects.filter(session_id__in=sessions).update(sent_at=Now())
    return sessions


def _held(mine: Claim) -> Any:
    return MemoryJob.objects.filter(id=mine.id, fence=mine.fence, open=True)


def _once_more() -> dict[str, Any]:
    return {
        "wanted": F("wanted") + 1,
        "attempts": Case(When(open=True, then=F("attempts")), default=Value(0)),
        "lease_expires_at": Case(When(open=True, then=F("lease_expires_at")), default=Now()),
        "open": True,
        "sent_at": Now(),
    }


def _after(seconds: float) -> Any:
    """By the database's clock: machines' clocks may differ."""
    return Now() + timedelta(seconds=seconds)
