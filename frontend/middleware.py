"""What browsers may load and run on our pages: files of this server, and nothing written into a page."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import cast

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

#: A model's text can't become a script even where we err: there's no inline script, no eval, and no HTML string is
#: accepted by the DOM (`require-trusted-types-for`).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)

#: Pages of others, with scripts and styles of their own: Django's admin, and the description of the REST interface.
EXEMPT_APPS = frozenset({"admin", "ninja"})

Sync = Callable[[HttpRequest], HttpResponseBase]
Async = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


@sync_and_async_middleware
def content_security_policy(get_response: Sync | Async) -> Sync | Async:
    """Send the policy with every response of ours."""
    if iscoroutinefunction(get_response):

        async def guard_async(request: HttpRequest) -> HttpResponseBase:
            return _guarded(request, await cast("Async", get_response)(request))

        return guard_async

    def guard(request: HttpRequest) -> HttpResponseBase:
        return _guarded(request, cast("Sync", get_response)(request))

    return guard


def _guarded(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if not _exempt(request, response):
        response.headers.setdefault("Content-Security-Policy", POLICY)
    return response


def _exempt(request: HttpRequest, response: HttpResponseBase) -> bool:
    # Django's own debug pages are made of inline styles and scripts.
    if settings.DEBUG and response.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR):
        return True
    match = request.resolver_match
    return match is not None and not EXEMPT_APPS.isdisjoint(match.app_names)
