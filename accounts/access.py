"""Who is asking. A caller is found from a session cookie or a token; every query then goes through the caller."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AbstractBaseUser
from django.http import HttpRequest

from accounts import tokens
from accounts.models import ADMINS, WRITERS, Workspace
from kernel.errors import Forbidden, NotAuthenticated
from kernel.text import storable


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A signed-in person. `name` is what others see."""

    user_id: int
    name: str
    #: Known by a token, which can't make another: its life is short.
    by_token: bool = False


def caller_of(user: AbstractBaseUser) -> Caller:
    """The caller for a user row. Raises NotAuthenticated for an anonymous or inactive one."""
    if not user.is_authenticated or not user.is_active or user.pk is None:
        raise NotAuthenticated
    return Caller(user_id=user.pk, name=str(user.get_username()))


def from_session_key(session_key: str) -> Caller:
    """The caller whose Django session this is (database work: two queries)."""
    if session_key != storable(session_key):  # a quoted cookie may hold a NUL, which the database refuses
        raise NotAuthenticated
    engine: Any = import_module(settings.SESSION_ENGINE)
    request = HttpRequest()
    request.session = engine.SessionStore(session_key)
    user = get_user(request)
    if not isinstance(user, AbstractBaseUser):
        raise NotAuthenticated
    return caller_of(user)


def from_token(token: str) -> Caller:
    """The caller a token was minted for (database work: one query)."""
    return replace(caller_of(tokens.user_of(token)), by_token=True)


def workspace_for(caller: Caller, workspace_id: UUID | None = None, *, roles: Collection[str] = WRITERS) -> Workspace:
    """The workspace to work in: the named one if the caller has one of the roles there, else the caller's own.

    Raises Forbidden when there's none, which is also the answer for a foreign one.
    """
    # One filter call, so that both conditions are about the same membership: the caller's.
    writable = Workspace.objects.filter(memberships__user_id=caller.user_id, memberships__role__in=roles)
    if workspace_id is not None:
        found = writable.filter(id=workspace_id).first()
    else:
        found = writable.filter(personal_of_id=caller.user_id).first() or writable.order_by("id").first()
    if found is None:
        what = "write in" if roles == WRITERS else "configure" if roles == ADMINS else "look into"
        raise Forbidden(f"You can't {what} that workspace, or it does not exist.")
    return found
