"""The one way to a document by URL. An address is checked, not a name: the name is resolved once, all that it resolves
to must be public, and the connection goes to what was checked. Each redirect is a new address.
"""

import asyncio
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import unquote, urljoin

import httpcore
from httpcore import AsyncConnectionPool, AsyncNetworkBackend, AsyncNetworkStream

from kernel.conf import config
from kernel.errors import Invalid
from kernel.text import storable
from llm.http import tls as public_tls
from vectorstore.errors import DocumentTooLarge, FetchFailed, UrlRefused
from vectorstore.parsing.kinds import EXTENSIONS, MEDIA_TYPES
from vectorstore.web_addresses import Address, address_of, permitted, system_resolve

_REDIRECTS = 3
_REDIRECT_CODES = {301, 302, 303, 307, 308}
#: Seconds for one of a host's addresses.
_CONNECT = 5.0
_PIECE = 65_536
_HEADERS = {
    "User-Agent": "django-chain (document fetcher)",
    "Accept": ", ".join(MEDIA_TYPES),
    "Accept-Encoding": "gzip",
    "Connection": "close",
}
#: What servers say of a file that they know nothing about; its name must tell.
_ANYTHING = {"", "application/octet-stream", "binary/octet-stream"}
_LONGEST_TYPE = 200
_LONGEST_NAME = 200
_GONE = {408, 425, 429}
_FILE = re.compile(r"[^/]+$")

Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What stands at `url`, the address after all redirects. `name` is a file name, made of the URL."""

    data: bytes
    content_type: str
    name: str
    url: str


async def fetch(
    url: str, *, max_bytes: int, resolve: Resolve = system_resolve, tls: ssl.SSLContext | None = None
) -> Fetched:
    """The document at a URL, of at most `max_bytes` bytes once unpacked, within VECTOR_STORE["FETCH_TIMEOUT"] seconds.

    `resolve` gives the addresses of a host and `tls` says whom to trust; both are for tests and unusual networks.
    Raises UrlRefused (an address that may not be asked, an answer that is no document), DocumentTooLarge, and
    FetchFailed where another try may help. No message holds anything that a server said.
    """
    seconds = config().vector_store.fetch_timeout
    try:
        async with asyncio.timeout(seconds):
            return await _following(url, max_bytes, resolve, tls or public_tls())
    except TimeoutError as error:
        raise FetchFailed(f"The address took longer than {seconds:g} seconds to answer.") from error


async def _following(url: str, max_bytes: int, resolve: Resolve, tls: ssl.SSLContext) -> Fetched:
    for _ in range(_REDIRECTS + 1):
        address = _checked(url)
        hosts = await permitted(address, resolve)
        async with _answer(address, hosts, tls) as response:
            if response.status not in _REDIRECT_CODES:
                return await _fetched(address, response, max_bytes)
            # Joined as text, then read anew with all the rules.
            url = urljoin(address.url, _header(response, b"location"))
    raise UrlRefused(f"The address redirects more than {_REDIRECTS} times.")


def _checked(url: str) -> Address:
    try:
        return address_of(url)
    except Invalid as error:
        raise UrlRefused(error.message) from error


@asynccontextmanager
async def _answer(address: Address, hosts: list[str], tls: ssl.SSLContext) -> AsyncIterator[httpcore.Response]:
    """The answer's head. The pool holds one connection and asks nothing of the environment: no proxy, no cookies."""
    target = httpcore.URL(
        scheme=address.scheme, host=address.host.encode(), port=address.port, target=address.target.encode()
    )
    headers = list({"Host": address.authority, **_HEADERS}.items())
    try:
        async with (
            AsyncConnectionPool(ssl_context=tls, max_connections=1, network_backend=_Pinned(hosts)) as pool,
            pool.stream("GET", target, headers=headers, extensions={"timeout": {"connect": _CONNECT}}) as response,
        ):
            yield response
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
        raise _broken() from error


class _Pinned(AsyncNetworkBackend):
    """Connects to addresses that were checked. A host's name is for TLS, which verifies it; none is resolved again."""

    def __init__(self, hosts: list[str]) -> None:
        self._hosts = hosts
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        failure: Exception = OSError("no address")
        for each in self._hosts:
            try:
                return await self._network.connect_tcp(each, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


async def _fetched(address: Address, response: httpcore.Response, max_bytes: int) -> Fetched:
    _check_status(response.status)
    content_type = _header(response, b"content-type")[:_LONGEST_TYPE]
    name = _name(address)
    media = content_type.partition(";")[0].strip().lower()
    known = media in MEDIA_TYPES or (media in _ANYTHING and any(name.lower().endswith(end) for end in EXTENSIONS))
    if not known:
        raise UrlRefused("The address holds no document of a kind that can be indexed.")
    data = await _body(response, max_bytes)
    return Fetched(data=data, content_type=content_type, name=name, url=address.url)


def _check_status(status: int) -> None:
    if status == 200:
        return
    if status in _GONE or status >= 500:
        raise FetchFailed(f"The address answers with status {status} now.")
    raise UrlRefused(f"The address answers with status {status}: there is no document for everyone to read.")


async def _body(response: httpcore.Response, max_bytes: int) -> bytes:
    """The body, unpacked. Never more than `max_bytes` and a piece are held, however much it would unpack to."""
    unpacking = _unpacking(_header(response, b"content-encoding").strip().lower())
    body = bytearray()
    async for packed in response.aiter_stream():
        for piece in _unpacked(packed, unpacking):
            body += piece
            if len(body) > max_bytes:
                raise DocumentTooLarge(f"The document at this address has more than {max_bytes} bytes.")
    if unpacking and not unpacking.eof:
        raise _broken()
    return bytes(body)


def _unpacking(encoding: str) -> "zlib._Decompress | None":
    if encoding in {"", "identity"}:
        return None
    if encoding not in {"gzip", "x-gzip"}:
        raise UrlRefused("The address answers in an encoding that was not asked for.")
    return zlib.decompressobj(wbits=31)


def _unpacked(data: bytes, unpacking: "zlib._Decompress | None") -> Iterable[bytes]:
    if unpacking is None:
        yield data
        return
    try:
        while data and not unpacking.eof:
            yield unpacking.decompress(data, _PIECE)
            data = unpacking.unconsumed_tail
    except zlib.error as error:
        raise _broken() from error


def _broken() -> FetchFailed:
    return FetchFailed("The address could not be reached, is not who it says, or its answer broke off.")


def _header(response: httpcore.Response, name: bytes) -> str:
    """The first header of that name, as a text without what a terminal or a log would obey; empty if there is none."""
    value = next((value for key, value in response.headers if key.lower() == name), b"")
    return "".join(character for character in value.decode("latin-1") if character.isprintable())


def _name(address: Address) -> str:
    last = _FILE.search(address.target.partition("?")[0])
    name = storable(unquote(last[0] if last else "", errors="replace"))
    name = "".join(character for character in name if character.isprintable() and character not in "/\\")
    return name[-_LONGEST_NAME:] or address.host
