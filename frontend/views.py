"""The chat page. It is a shell: conversations come over the socket and REST, so that two tabs show the same."""

from typing import cast
from uuid import UUID

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AbstractBaseUser
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render, resolve_url
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.access import caller_of
from chat.models import ChatSession
from kernel.conf import config
from vectorstore import uploads
from vectorstore.parsing.kinds import READABLE

#: Where the REST interface of chat is served.
API_ROOT = "/api/v1/"


@require_safe
@never_cache
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """The list of conversations and an empty one, which exists once something is said in it."""
    return _page(request, "")


@require_safe
@never_cache
@login_required
def conversation(request: HttpRequest, session_id: UUID) -> HttpResponse:
    """A conversation of the caller's; a foreign one and a missing one are the same 404."""
    caller = caller_of(cast("AbstractBaseUser", request.user))  # login_required has let nobody else in
    if not ChatSession.objects.visible_to(caller).filter(id=session_id).exists():
        raise Http404
    return _page(request, str(session_id))


def _page(request: HttpRequest, session_id: str) -> HttpResponse:
    home_url = reverse("frontend:home")
    context = {
        "session_id": session_id,
        "home": home_url,
        "conversations": f"{home_url}c/",
        "login": resolve_url(settings.LOGIN_URL),
        "api_root": API_ROOT,
        "csrf_cookie": settings.CSRF_COOKIE_NAME,
        "max_files": uploads.MAX_FILES,
        "max_bytes": config().vector_store.max_document_bytes,
        "readable": READABLE[:1].upper() + READABLE[1:],
    }
    return render(request, "frontend/chat.html", context)
