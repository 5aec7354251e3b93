"""Which addresses rows in the database may name: those under an entry of LLM["ALLOWED_BASE_URLS"].

A row's address decides where prompts and keys go, so nothing is guessed: what two parsers could read in two ways
(user names, backslashes, dot segments, encoded slashes, names that are not plain ASCII) is refused, not repaired.
"""

import re
from functools import lru_cache
from urllib.parse import urlsplit

from kernel.conf import config
from kernel.errors import Invalid, Misconfigured
from kernel.hosts import canonical_host

_PORTS = {"http": 80, "https": 443}
_SEGMENT = re.compile(r"[A-Za-z0-9._~:@!$&'()*+,;=-]+")
_LONGEST = 500


@lru_cache(1024)
def canonical(url: str) -> str:
    """`scheme://host[:port][/path]`: lower case where case means nothing, no default port, no slash at the end.

    Raises Invalid that says what is wrong with it.
    """
    if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise Invalid("A base URL is plain ASCII without spaces and backslashes; write an international name as xn--….")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Invalid("The base URL is not one: its host or port can't be read.") from error
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not url[len(scheme) :].startswith("://"):
        raise Invalid("A base URL begins with https:// or http://.")
    if "@" in parts.netloc:
        raise Invalid("A base URL holds no user name and password; give the key as `key`.")
    if "?" in url or "#" in url:
        raise Invalid("A base URL ends with its path; leave out what begins with ? or #.")
    if parts.netloc.endswith(":") or port == 0:
        raise Invalid("The base URL's port is not one.")
    place = "" if port in (None, _PORTS[scheme]) else f":{port}"
    return f"{scheme}://{_host(parts.hostname or '')}{place}{_path(parts.path)}"


def allowed(url: str) -> str:
    """The canonical form, if it equals or lies under an entry of the setting. Raises Invalid, naming no entry."""
    wanted = canonical(url)
    for entry in config().llm.allowed_base_urls:
        try:
            known = canonical(entry)
        except Invalid as error:
            raise Misconfigured(
                f"DJANGO_CHAIN['LLM']['ALLOWED_BASE_URLS'] has an entry that is no base URL. {error.message}"
            ) from error
        # On a segment's border: /v1 allows /v1/team, not /v10.
        if wanted == known or wanted.startswith(f"{known}/"):
            return wanted
    raise Invalid("This base URL is not one that the server's operator allows (LLM['ALLOWED_BASE_URLS']).")


def _host(host: str) -> str:
    try:
        found = canonical_host(host)
    except ValueError as error:
        raise Invalid(f"The base URL's host {error}.") from error
    return f"[{found}]" if ":" in found else found


def _path(path: str) -> str:
    if path in ("", "/"):
        return ""
    segments = path.removesuffix("/").removeprefix("/").split("/")
    if any(part in (".", "..") or not _SEGMENT.fullmatch(part) for part in segments):
        raise Invalid("The base URL's path has a segment that could mean two things: an empty one, . or .. or a %.")
    return "/" + "/".join(segments)
