"""The way to the network for SDKs that stand on httpx (Google's, Hugging Face's): shared pools, separate bounds.

These SDKs take one number for all of connecting, reading and the whole; here each gets its own. Neither follows
redirects: a provider's answer must not send the key elsewhere.
"""

from contextvars import ContextVar
from functools import cache
from typing import TypedDict

import httpx
from typing_extensions import override

from llm import http
from llm.errors import ProviderBadResponse, ProviderError, ProviderTimeout, ProviderUnavailable
from llm.providers.base import ProviderConfig

_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)


class Bounds(TypedDict):
    """As httpx takes them, in seconds."""

    connect: float
    read: float
    write: float
    pool: float


def bounds_of(config: ProviderConfig) -> Bounds:
    connect = config.bounds.connect_timeout
    return Bounds(connect=connect, read=config.read_timeout, write=config.read_timeout, pool=connect)


class BoundedTransport(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """The shared connections, with the bounds of one alias. Closing it leaves them open: others use them."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["timeout"] = dict(self._bounds)
        response = await http.shared(client).send(request, stream=True)
        noted = _responses.get(None)
        if noted is not None:
            noted.append(response)
        return response

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["timeout"] = dict(self._bounds)
        return _sync_client().send(request, stream=True)


_responses: ContextVar[list[httpx.Response]] = ContextVar("responses")


def note_responses() -> list[httpx.Response]:
    """The responses that BoundedTransport gives from now on in this context, for a caller that must close them."""
    noted: list[httpx.Response] = []
    _responses.set(noted)
    return noted


def explain(error: Exception) -> ProviderError | None:
    """httpx's exceptions are none of Python's own."""
    if isinstance(error, (httpx.ConnectTimeout, httpx.PoolTimeout)):
        return ProviderUnavailable()
    if isinstance(error, httpx.TimeoutException):
        return ProviderTimeout()
    if isinstance(error, httpx.TransportError):
        return ProviderUnavailable()
    return ProviderBadResponse() if isinstance(error, httpx.DecodingError) else None


def client() -> httpx.AsyncClient:
    """To be shared (llm.http.shared); give each request its bounds."""
    return httpx.AsyncClient(verify=http.tls(), limits=_LIMITS, follow_redirects=False, cookies=http.no_cookies())


@cache
def _sync_client() -> httpx.Client:
    return httpx.Client(verify=http.tls(), limits=_LIMITS, follow_redirects=False, cookies=http.no_cookies())
