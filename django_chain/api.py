"""The REST API: who may call it, and how its errors look: `{"code", "message"}`, as on the socket."""

import logging
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.http import HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.security import HttpBearer, SessionAuth

from accounts import access
from accounts.access import Caller
from chat.api import router
from django_chain import __version__
from kernel import database
from kernel.errors import (
    Busy,
    ChainError,
    Conflict,
    Forbidden,
    Invalid,
    NotAuthenticated,
    NotFound,
    TooLarge,
    Unavailable,
)
from kernel.redaction import redact_data
from llm.rest import caches, log, models, money, prompts, runs, workflows
from vectorstore.rest import collections, reembed, search, uploads, watching

logger = logging.getLogger(__name__)

_STATUS: list[tuple[type[ChainError], int]] = [
    (NotAuthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (Invalid, 422),
    (Busy, 429),
    (Unavailable, 503),
]


class CookieAuth(SessionAuth):
    """The page's own session; its unsafe requests need the CSRF token."""

    def _get_key(self, request: HttpRequest) -> str | None:
        # Who sends no cookie has nothing that another page could misuse: the answer is "sign in", not "CSRF".
        return super()._get_key(request) if self.param_name in request.COOKIES else None

    async def authenticate(self, request: HttpRequest, key: str | None) -> Caller | None:
        try:
            return await database.run(access.from_session_key, key) if key else None
        except NotAuthenticated:
            return None


class TokenAuth(HttpBearer):
    """A bearer token from POST /api/v1/token."""

    async def authenticate(self, request: HttpRequest, token: str) -> Caller | None:
        try:
            return await database.run(access.from_token, token)
        except NotAuthenticated:
            return None


api = NinjaAPI(title="Django Chain", version=__version__, auth=[TokenAuth(), CookieAuth()], urls_namespace="api")
api.add_router("", router)
api.add_router("", caches.router)
api.add_router("", prompts.router)
api.add_router("", models.router)
api.add_router("", log.router)
api.add_router("", money.router)
api.add_router("", workflows.router)
api.add_router("", runs.router)
api.add_router("", collections.router)
api.add_router("", uploads.router)
api.add_router("", search.router)
api.add_router("", reembed.router)
api.add_router("", watching.router)


def _answer(request: HttpRequest, *, status: int, code: str, message: str, **more: Any) -> HttpResponse:
    # Every error's body is made here: what a text might quote is taken out at this one place.
    body = redact_data({"code": code, "message": message, **more})
    return api.create_response(request, body, status=status)


@api.exception_handler(ChainError)
def on_chain_error(request: HttpRequest, error: ChainError) -> HttpResponse:
    status = next((number for kind, number in _STATUS if isinstance(error, kind)), 500)
    response = _answer(request, status=status, code=error.code, message=error.message)
    if error.retry_after is not None:
        response["Retry-After"] = str(max(1, round(error.retry_after)))
    return response


@api.exception_handler(AuthenticationError)
def on_no_caller(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    return _answer(request, status=401, code=NotAuthenticated.code, message=NotAuthenticated.default_message)


@api.exception_handler(ValidationError)
def on_invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    # Without the values: what a caller sent doesn't come back in an error.
    faults = [{"where": ".".join(map(str, fault["loc"])), "what": fault["msg"]} for fault in error.errors]
    return _answer(request, status=422, code=Invalid.code, message=Invalid.default_message, faults=faults)


@api.exception_handler(HttpError)
def on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    code = Forbidden.code if error.status_code == 403 else Invalid.code
    return _answer(request, status=error.status_code, code=code, message=str(error))


@api.exception_handler(RequestDataTooBig)
def on_large_body(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    # Django counts files by themselves: what is too long for JSON can go as one.
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    how = "send a long text as a file (POST /collections/{id}/documents), or raise DATA_UPLOAD_MAX_MEMORY_SIZE"
    return _answer(
        request, status=413, code=TooLarge.code, message=f"Without its files a request has at most {most} bytes; {how}."
    )


@api.exception_handler(TooManyFilesSent)
@api.exception_handler(TooManyFieldsSent)
def on_many_parts(request: HttpRequest, error: Exception) -> HttpResponse:
    return _answer(request, status=413, code=TooLarge.code, message="The form has too many fields or files.")


@api.exception_handler(MultiPartParserError)
def on_broken_form(request: HttpRequest, error: MultiPartParserError) -> HttpResponse:
    return _answer(request, status=400, code=Invalid.code, message="The form is cut off, or not multipart/form-data.")


@api.exception_handler(Exception)
def on_bug(request: HttpRequest, error: Exception) -> HttpResponse:
    logger.error("action=request_failed path=%s", request.path, exc_info=error)
    return _answer(request, status=500, code=ChainError.code, message=ChainError.default_message)
