"""The HTTP clients that adapters share: one connection pool an event loop, one TLS context a process.

A pool belongs to the loop that opened its connections; used from another it fails with "Event loop is closed".
"""

import asyncio
import ssl
from functools import cache
from weakref import WeakKeyDictionary

import httpx2
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient] = WeakKeyDictionary()


@cache
def tls() -> ssl.SSLContext:
    """Building it reads the CA bundle: 60 ms, which would stall a loop for each new client."""
    return httpx2.create_ssl_context()


def async_client() -> httpx2.AsyncClient:
    """This event loop's client; outside of a loop (warming up) one of its own that is never opened.

    It follows no redirect: a provider's answer must not send the key elsewhere.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return DefaultAsyncHttpxClient(verify=tls(), follow_redirects=False)
    if loop not in _clients:
        _clients[loop] = DefaultAsyncHttpxClient(verify=tls(), follow_redirects=False)
    return _clients[loop]


@cache
def sync_client() -> httpx2.Client:
    """For LangChain's synchronous methods, which the server never calls but the SDK wants to have."""
    return DefaultHttpxClient(verify=tls(), follow_redirects=False)


async def close() -> None:
    """Close this event loop's connections."""
    client = _clients.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.aclose()
