"""Who uses what only one process may use: a row in PostgreSQL that a process holds, and renews while it uses the thing.

A second process would recall nothing wrong, for it reads the same truth; but what the thing was chosen for, reading
without the database, would be lost without a word. So it is refused, with what to do.
"""

import logging
import os
import socket
from datetime import timedelta
from secrets import token_hex
from time import monotonic

from django.db import models, transaction
from django.db.models.functions import Now

from kernel import database
from kernel.errors import Misconfigured

logger = logging.getLogger(__name__)

#: Seconds that a lease lasts, and after which a user of it renews it.
LASTS = 60.0
RENEWED_AFTER = 15.0

_HOST = socket.gethostname()[:100]
_TOKEN = token_hex(6)
#: When this process renewed each of its leases.
_held: dict[str, float] = {}


class ProcessLease(models.Model):
    """The process that holds `name`."""

    name = models.CharField(max_length=100, primary_key=True)
    host = models.CharField(max_length=100)
    pid = models.PositiveIntegerField()
    token = models.CharField(max_length=32)
    expires_at = models.DateTimeField()

    class Meta:
        app_label = "memory"

    def __str__(self) -> str:
        return f"{self.name}: process {self.pid} on {self.host}"


async def hold(name: str) -> None:
    """Hold the lease `name`, or renew it. Raises Misconfigured while another live process holds it."""
    if monotonic() - _held.get(name, float("-inf")) < RENEWED_AFTER:
        return
    began = monotonic()
    holder = await database.run(claim, name)
    if holder is not None:
        _held.pop(name, None)
        logger.error("action=lease_refused name=%s holder=%s:%d", name, holder.host, holder.pid)
        raise Misconfigured(
            f"Memory store {name!r} is for a single process, and process {holder.pid} on {holder.host} uses it. Choose"
            ' "postgres" or "redis" in DJANGO_CHAIN["MEMORY"]["STORE"] or in the workflow\'s memory step, or run one'
            f" process; one that has died is forgotten within {LASTS:.0f} seconds."
        )
    _held[name] = began


def claim(name: str) -> ProcessLease | None:
    """Take or renew a lease; its holder if that is another live process. Database work."""
    ours = {"host": _HOST, "pid": os.getpid(), "token": _TOKEN, "expires_at": Now() + timedelta(seconds=LASTS)}
    with transaction.atomic():
        _, made = ProcessLease.objects.get_or_create(name=name, defaults=ours)
        if made:
            return None
        lease = ProcessLease.objects.select_for_update().get(name=name)
        expired = ProcessLease.objects.filter(name=name, expires_at__lt=Now()).exists()
        if lease.token != _TOKEN and not expired and not _has_died(lease):
            return lease
        ProcessLease.objects.filter(name=name).update(**ours)
    return None


def _has_died(lease: ProcessLease) -> bool:
    """Whether the holder is surely gone: a server that was restarted on the same machine need not wait."""
    if lease.host != _HOST:
        return False
    if lease.pid == os.getpid():
        return True  # its number is ours now
    try:
        os.kill(lease.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
