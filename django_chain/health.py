"""`/healthz`: the process lives. `/readyz`: it can take traffic."""

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from chat.runtime import Runtime
from kernel import database
from kernel.errors import Busy, DatabaseUnavailable


@require_safe
async def healthz(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


@require_safe
async def readyz(request: HttpRequest) -> JsonResponse:
    """503 while the model is being loaded, during a drain and without the database; Redis away is only `degraded`."""
    runtime = Runtime.current()
    parts = {
        "database": await _database(),
        "store": "ok" if runtime.hub.store_up else "degraded",
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


def _ping() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
