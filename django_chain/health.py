"""`/healthz`: the process lives. `/readyz`: it can take traffic."""

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from chat.runtime import Runtime
from kernel import database
from kernel.conf import config
from kernel.errors import Busy, DatabaseUnavailable
from vectorstore import figures, rows


@require_safe
async def healthz(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


@require_safe
async def readyz(request: HttpRequest) -> JsonResponse:
    """503 while the model is being loaded, during a drain and without the database; Redis or the vector store away is
    only `degraded`: other processes would not do better.
    """
    runtime = Runtime.current()
    parts = {
        "database": await _database(),
        "store": "ok" if runtime.hub.store_up else "degraded",
        "vectors": await _vectors(),
        "model": "ok" if runtime.warm else "starting",
        "server": "draining" if runtime.draining else "ok",
    }
    ready = parts["database"] == "ok" and parts["model"] == "ok" and parts["server"] == "ok"
    return JsonResponse({"status": "ready" if ready else "not ready", **parts}, status=200 if ready else 503)


async def _database() -> str:
    try:
        await database.run(_ping)
    except (DatabaseUnavailable, Busy):
        return "down"
    return "ok"


async def _vectors() -> str:
    """The store of new collections' vectors. `pgvector` is the database, which has a part of its own."""
    if config().vector_store.backend == rows.BESIDE:
        return "ok"
    return "ok" if (await figures.default_store()).ok else "degraded"


def _ping() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
