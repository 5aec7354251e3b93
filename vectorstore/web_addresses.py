"""URLs that may be asked for a document: how they are written, and where they may lead.

What two parsers could read in two ways is refused, not repaired; then it doesn't matter which of them a library uses.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import quote, urlsplit

from kernel.conf import config
from kernel.errors import Invalid
from kernel.hosts import canonical_host
from vectorstore.errors import FetchFailed, UrlRefused

_PORTS = {"http": 80, "https": 443}
_LONGEST = 2000
#: A % that begins no escape could be read in two ways; what stands beside letters and digits is RFC 3986's.
_TARGET_SAFE = "/?:@!$&'()*+,;=-._~%"
_A_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^?#]*", re.IGNORECASE)
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
#: IPv6 ranges that hold an IPv4 address, and the bits to its right: a gateway or a tunnel would go there.
_HOLDS_IPV4 = {
    IPv6Network("::/96"): 0,
    IPv6Network("::ffff:0:0/96"): 0,
    IPv6Network("::ffff:0:0:0/96"): 0,
    IPv6Network("64:ff9b::/96"): 0,
    IPv6Network("2002::/16"): 80,
}
#: Tunnels and translators that say of themselves where they end: Teredo, local NAT64; and site-local, long retired.
_NEVER_PUBLIC = [IPv6Network("2001::/23"), IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10")]
_PUBLIC = IPv6Network("2000::/3")


@dataclass(frozen=True, kw_only=True)
class Address:
    """A URL in its parts. `target` is the path with its query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        return self.host_in_url if self.port == _PORTS[self.scheme] else f"{self.host_in_url}:{self.port}"

    @property
    def host_in_url(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def address_of(url: str) -> Address:
    """The URL, read by strict rules. Raises Invalid that says what is wrong with it."""
    if len(url) > _LONGEST or not url.isprintable() or " " in url or "\\" in url:
        raise Invalid(f"A URL has at most {_LONGEST} characters and no spaces, backslashes or control characters.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Invalid("The URL's host or port can't be read.") from error
    scheme = _scheme(parts.scheme, url)
    if not parts.netloc.isascii():
        raise Invalid("The URL's host is not plain ASCII; write an international name as xn--….")
    if "@" in parts.netloc:
        raise Invalid("A URL with a user name or a password is not fetched.")
    port = _PORTS[scheme] if port is None else port
    if parts.netloc.endswith(":") or port not in config().vector_store.fetch_ports:
        raise Invalid("The URL's port is not one that documents are fetched from (VECTOR_STORE['FETCH_PORTS']).")
    try:
        host = canonical_host(parts.hostname or "")
    except ValueError as error:
        raise Invalid(f"The URL's host {error}.") from error
    # The fragment is for who reads the document, and not sent.
    target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    if _BROKEN_ESCAPE.search(target):
        raise Invalid("The URL has a % that begins no escape; write it as %25.")
    return Address(scheme=scheme, host=host, port=port, target=quote(target, safe=_TARGET_SAFE))


def without_query(source: str) -> str:
    """What a document is called that has no name but its source. A URL's query may hold a signature or a token: it is
    for who reads the document, and a title is shown to others too.
    """
    url = _A_URL.match(source)
    return source if url is None else url.group()


def _scheme(scheme: str, url: str) -> str:
    scheme = scheme.lower()
    if scheme not in _PORTS or not url[len(scheme) :].startswith("://"):
        raise Invalid("A document's URL begins with https://.")
    if scheme == "http" and not config().vector_store.fetch_http:
        raise Invalid("Documents are fetched by https only (VECTOR_STORE['FETCH_HTTP']).")
    return scheme


async def permitted(address: Address, resolve: Callable[[str, int], Awaitable[list[str]]]) -> list[str]:
    """The IP addresses that may be connected to for a URL, resolved now.

    Raises UrlRefused if any of them is not public: a name that leads to both is somebody's trick. The operator's own
    hosts (VECTOR_STORE["FETCH_ALLOWED_HOSTS"]) may be private. FetchFailed if the name can't be resolved.
    """
    own = address.host in {name.lower().strip("[]") for name in config().vector_store.fetch_allowed_hosts}
    try:
        found = [_parsed(each) for each in await resolve(address.host, address.port)]
    except (OSError, UnicodeError) as error:
        raise FetchFailed("The URL's host could not be found.") from error
    if not found:
        raise FetchFailed("The URL's host could not be found.")
    if not all(_reachable(each) if own else public(each) for each in found):
        raise UrlRefused("The URL leads into a private network, where documents are not fetched from.")
    return [str(each) for each in found]


async def system_resolve(host: str, port: int) -> list[str]:
    """All addresses of a host, by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def _parsed(address: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(address)
    except ValueError as error:
        raise UrlRefused("The URL leads into a private network, where documents are not fetched from.") from error


def public(address: IPv4Address | IPv6Address) -> bool:
    """Whether anybody on the internet may be at this address, and nobody but the internet."""
    if isinstance(address, IPv4Address):
        return address.is_global and not (address.is_multicast or address.is_reserved)
    if address.scope_id or any(address in network for network in _NEVER_PUBLIC):
        return False
    for network, shift in _HOLDS_IPV4.items():
        if address in network:
            return public(IPv4Address(int(address) >> shift & 0xFFFF_FFFF))
    return address in _PUBLIC and address.is_global and not address.is_multicast


def _reachable(address: IPv4Address | IPv6Address) -> bool:
    """For a host that the operator names: a machine's own address, but never the one where clouds keep their keys."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    each = mapped or address
    return not (each.is_link_local or each.is_multicast or each.is_unspecified)
