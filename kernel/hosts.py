"""Host names and addresses in URLs, where each may be written in one way only."""

import ipaddress
import re

_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)*")
#: A number in a form that some resolvers take for an IPv4 address: 2130706433, 0x7f.1, 127.1.
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*")


def canonical_host(host: str) -> str:
    """A lower-case host as it stands in a URL, an IPv6 address compressed and without brackets.

    Raises ValueError with the rest of a sentence that begins with whose host it is.
    """
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError as error:
            raise ValueError("is no address") from error
        if address.scope_id:
            raise ValueError("is an address of one network card")
        return address.compressed
    if _NUMERIC.fullmatch(host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as error:
            raise ValueError("is no address; write it as four numbers") from error
    if not _HOST.fullmatch(host):
        raise ValueError("is no name: letters, digits, - and dots, and no dot at its end")
    return host
