"""What every REST router shares: who calls, and pages of rows that are sorted by their ids."""

from typing import Any, TypeVar
from uuid import UUID

from django.db.models import Model, QuerySet
from django.http import HttpRequest

from accounts.access import Caller

M = TypeVar("M", bound=Model)


def caller_of(request: HttpRequest) -> Caller:
    """The caller that the API's authentication found."""
    caller: Caller = request.auth  # type: ignore[attr-defined]  # django-ninja puts it there
    return caller


def newest_first(rows: "QuerySet[M]", *, limit: int, before: UUID | None) -> tuple[list[M], UUID | None]:
    """A page of rows and the `before` of the next one (None: it was the last).

    Ids are UUIDv7: their order is that of creation, and a page stays true while rows come and go.
    """
    found = rows.order_by("-id")
    if before is not None:
        found = found.filter(id__lt=before)
    page: list[Any] = list(found[: limit + 1])
    return page[:limit], page[limit - 1].id if len(page) > limit else None
