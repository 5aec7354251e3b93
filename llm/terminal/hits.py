"""`manage.py llm caches`: how often a server's caches have helped. This process has its own, which nobody has used."""

import json
import os
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError

from accounts import tokens
from llm.terminal.paper import Paper

_DEFAULT_URL = "http://127.0.0.1:8000"
_TIMEOUT = 10
_MOST_BYTES = 1_000_000


def show_caches(paper: Paper, options: dict[str, Any]) -> None:
    url = (options["url"] or os.environ.get("CHAIN_URL") or _DEFAULT_URL).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"The server's address has the form http://host:port, unlike {url!r}.")
    rows = [row | {"rate": _rate(row)} for row in _asked(url, _token(options["user"]))]
    paper.rows(rows, ("name", "hits", "misses", "rate", "size"), nothing="No cache was used yet.")


def _rate(row: dict[str, Any]) -> str | None:
    asked = row["hits"] + row["misses"]
    return f"{row['hits'] / asked:.0%}" if asked else None


def _asked(url: str, token: str) -> list[dict[str, Any]]:
    request = Request(f"{url}/api/v1/caches", headers={"Authorization": f"Bearer {token}"})  # noqa: S310  checked
    try:
        # A proxy of the environment must not see the token of a server nearby.
        with build_opener(ProxyHandler({})).open(request, timeout=_TIMEOUT) as response:
            found: list[dict[str, Any]] = json.loads(response.read(_MOST_BYTES))
            return found
    except HTTPError as error:
        with error:
            raise CommandError(f"The server refuses ({error.code}): only staff may ask it.") from error
    except (URLError, OSError, ValueError) as error:
        raise CommandError(f"No server of ours answers at {url}; name one with --url.") from error


def _token(user: str | None) -> str:
    """Of the environment, else made from the database for someone of the staff."""
    if user is None and (given := os.environ.get("DJANGO_CHAIN_TOKEN")):
        return given
    people = get_user_model().objects.filter(is_staff=True, is_active=True)
    if user is not None:
        people = people.filter(**{get_user_model().USERNAME_FIELD: user})
    found = people.order_by("pk").first()
    if found is None:
        raise CommandError("There is no such person among the staff; `manage.py createsuperuser` makes one.")
    return tokens.mint(found)
