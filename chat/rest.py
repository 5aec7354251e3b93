"""The one REST call that a terminal needs before it has a socket: making a conversation."""

import asyncio
from http.client import HTTPException
from time import monotonic
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener
from uuid import UUID

import msgspec

from chat.client import CommandRefused, NotSignedIn, NotUnderstood, Unreachable, is_loopback, reason_of

_TIMEOUT = 10.0


class _Session(msgspec.Struct):
    id: UUID


class _Said(msgspec.Struct):
    """The body of an error."""

    code: str = ""
    message: str = ""


async def create_session(url: str, *, token: str, workflow: str = "", patience: float = 60.0) -> UUID:
    """Make a conversation at the server `url`, answered by a workflow if one is named; its id. Raises ClientError.

    A server that is busy, or has lost its database, is asked again until `patience` seconds are over.
    """
    until = monotonic() + patience
    asked = msgspec.json.encode({"workflow": workflow} if workflow else {})
    while True:
        try:
            body = await asyncio.to_thread(_post, f"{url}/api/v1/sessions", token, asked)
            return msgspec.json.decode(body, type=_Session).id
        except HTTPError as error:
            wait = _retry_after(error)
            if wait is None or monotonic() + wait > until:
                raise _typed(url, error) from error
            await asyncio.sleep(wait)
        except (OSError, HTTPException) as error:
            inner = getattr(error, "reason", error)
            reason = reason_of(inner if isinstance(inner, Exception) else error)
            raise Unreachable(f"No chat server answers at {url}: {reason}.") from error
        except msgspec.MsgspecError as error:
            raise NotUnderstood(f"What answers at {url} is no chat server of ours.") from error


def _post(url: str, token: str, asked: bytes) -> bytes:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = Request(url, data=asked, headers=headers)  # noqa: S310  the caller has checked that it is http(s)
    with _opener(url).open(request, timeout=_TIMEOUT) as response:
        body: bytes = response.read()
    return body


class _NoRedirect(HTTPRedirectHandler):
    """The token goes to the address that was named, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _opener(url: str) -> OpenerDirector:
    # A proxy of the environment can't reach this machine's own server.
    return build_opener(_NoRedirect, *([ProxyHandler({})] if is_loopback(url) else []))


def _retry_after(error: HTTPError) -> float | None:
    """The seconds to wait, where a busy server names them."""
    named = error.headers.get("Retry-After", "") if error.code in (429, 503) else ""
    return float(named) if named.isdecimal() else None


def _typed(url: str, error: HTTPError) -> Exception:
    try:
        said = msgspec.json.decode(error.read(), type=_Said)
    except (msgspec.MsgspecError, OSError, HTTPException):
        said = _Said()
    if error.code == 401:
        return NotSignedIn("The token is not valid or has expired.", code=said.code)
    if said.message:
        return CommandRefused(said.message, code=said.code)
    if 300 <= error.code < 400:
        where = error.headers.get("Location", "elsewhere")
        return Unreachable(f"{url} redirects to {where}; use the address itself, so that the token goes nowhere else.")
    return Unreachable(f"No chat server answers at {url}: HTTP {error.code}.")
