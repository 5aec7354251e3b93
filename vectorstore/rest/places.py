"""What the routers of this package share: whose scope a request works in, and values that PostgreSQL can hold."""

import json
from collections.abc import Callable
from math import isfinite
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar
from uuid import UUID

from django.http import HttpRequest
from ninja import Path, Query
from pydantic import AfterValidator

from accounts.access import Caller, workspace_for
from accounts.models import READERS
from accounts.rest import caller_of
from kernel import database
from kernel.errors import Forbidden, NotFound
from kernel.text import storable
from vectorstore.scope import Scope

P = ParamSpec("P")
T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=100)]
#: A collection's id, or the word `default`.
Ref = Annotated[UUID | Literal["default"], Path()]

_MAX_METADATA_BYTES = 16_384
_MAX_DEPTH = 8


def scope_of(caller: Caller, workspace: UUID | None, *, of_object: bool = False) -> Scope:
    """The caller's scope in a workspace, their own without one (database work).

    Raises Forbidden for a foreign workspace; with `of_object` NotFound, as the object in it isn't there for them.
    """
    try:
        place = workspace_for(caller, workspace, roles=READERS)
    except Forbidden as error:
        if of_object:
            raise NotFound from error
        raise
    return Scope(place.pk, caller.user_id)


async def in_place(
    request: HttpRequest,
    workspace: UUID | None,
    unit: Callable[Concatenate[Scope, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run `unit(scope, …)` about an object of the workspace: the look at who calls, and it, in one unit of work."""
    caller = caller_of(request)

    def work() -> T:
        scope = scope_of(caller, workspace, of_object=True)
        with scope.wall():
            return unit(scope, *args, **kwargs)

    return await database.run(work)


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    held: dict[str, Any] = _storable(value, 0)
    if len(json.dumps(held)) > _MAX_METADATA_BYTES:
        raise ValueError(f"metadata has at most {_MAX_METADATA_BYTES} bytes as JSON")
    return held


def _storable(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"metadata is nested at most {_MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        return {storable(name): _storable(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list):
        return [_storable(one, depth + 1) for one in value]
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("metadata holds numbers that JSON knows")
    return storable(value) if isinstance(value, str) else value


#: A document's own facts, which searches filter by.
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]
#: Text that PostgreSQL can hold.
Line = Annotated[str, AfterValidator(storable)]
