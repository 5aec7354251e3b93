"""The way to the network for SDKs that stand on httpx (Google's, Hugging Face's): shared pools, separate bounds.

These SDKs take one number for all of connecting, reading and the whole; here each gets its own. Neither follows
redirects: a provider's answer must not send the key elsewhere.
"""

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
    """The shared pool, with the bounds of one alias. Closing it leaves the pool open: others use it."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["timeout"] = dict(self._bounds)
        return await http.shared(_pool).handle_async_request(request)

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["timeout"] = dict(self._bounds)
        return _sync_pool().handle_request(request)


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
    return httpx.AsyncClient(verify=http.tls(), limits=_LIMITS, follow_redirects=False)


def _pool() -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(verify=http.tls(), limits=_LIMITS)


@cache
def _sync_pool() -> httpx.HTTPTransport:
    return httpx.HTTPTransport(verify=http.tls(), limits=_LIMITS)
