"""The HTTP connections that adapters share: one pool an event loop, one TLS context a process.

A pool belongs to the loop that opened its connections; used from another it fails with "Event loop is closed".
"""

import asyncio
import ssl
from collections.abc import Callable
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

import httpx2


class Closable(Protocol):
    async def aclose(self) -> None: ...


C = TypeVar("C", bound=Closable)
_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Callable[[], Closable], Closable]] = WeakKeyDictionary()


@cache
def tls() -> ssl.SSLContext:
    """Building it reads the CA bundle: 60 ms, which would stall a loop for each new client."""
    return httpx2.create_ssl_context()


def no_cookies() -> CookieJar:
    """A jar that stays empty: a provider's cookies for one workspace are not sent with the requests of another."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def shared(make: Callable[[], C]) -> C:
    """This event loop's one `make()`; outside of a loop (warming up) one that is never opened."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return make()
    known = _shared.setdefault(loop, {})
    if make not in known:
        known[make] = make()
    return known[make]  # type: ignore[return-value]  # a key's value is what the key makes


def async_client() -> httpx2.AsyncClient:
    """The client for OpenAI's SDK. It follows no redirect: a provider's answer must not send the key elsewhere."""
    return shared(_async_client)


def _async_client() -> httpx2.AsyncClient:
    # The adapters of other providers share pools here too, and need no OpenAI.
    from openai import DefaultAsyncHttpxClient  # noqa: PLC0415

    return DefaultAsyncHttpxClient(verify=tls(), follow_redirects=False, cookies=no_cookies())


@cache
def sync_client() -> httpx2.Client:
    """For LangChain's synchronous methods, which the server never calls but the SDK wants to have."""
    from openai import DefaultHttpxClient  # noqa: PLC0415  as above

    return DefaultHttpxClient(verify=tls(), follow_redirects=False, cookies=no_cookies())


async def close() -> None:
    """Close this event loop's connections."""
    for pool in _shared.pop(asyncio.get_running_loop(), {}).values():
        await pool.aclose()
