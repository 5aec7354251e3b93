"""REST: how often the caches of this server process have helped, for the operator's people."""

from django.contrib.auth import get_user_model
from django.http import HttpRequest
from ninja import Router
from pydantic import BaseModel

from accounts.rest import caller_of
from kernel import caches, database
from kernel.errors import Forbidden

router = Router(tags=["caches"])


class CacheFigures(BaseModel):
    """Since the process began. `size`: values it holds now; null: they are rows of the database."""

    name: str
    hits: int
    misses: int
    size: int | None


@router.get("/caches", response=list[CacheFigures], summary="Hits and misses of this server process's caches (staff)")
async def list_caches(request: HttpRequest) -> list[CacheFigures]:
    await database.run(_only_staff, caller_of(request).user_id)
    return [
        CacheFigures(name=name, hits=known.hits, misses=known.misses, size=known.size)
        for name, known in caches.figures().items()
    ]


def _only_staff(user_id: int) -> None:
    if not get_user_model().objects.filter(pk=user_id, is_staff=True).exists():
        raise Forbidden("Only staff may look into the server's caches.")
