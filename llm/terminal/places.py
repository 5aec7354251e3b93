"""Whose configuration a subcommand is about, and where it takes a secret from."""

import getpass
import os
import sys
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from accounts.models import Workspace
from llm import configuration
from llm.configuration import Configuration

#: The id of no workspace: what holds for those without a configuration of their own.
_NOBODY = UUID(int=0)


def workspace_id(given: str | None) -> UUID | None:
    """The workspace of `--workspace`; None without it. Raises CommandError."""
    if given is None:
        return None
    try:
        return Workspace.objects.get(id=UUID(given)).id
    except (ValueError, Workspace.DoesNotExist) as error:
        raise CommandError(f"There is no workspace {given!r}.") from error


def configuration_of(workspace: UUID | None) -> Configuration:
    """What holds in a workspace, or in one that has configured nothing."""
    return configuration.load(workspace or _NOBODY)


def key(options: dict[str, Any]) -> str | None:
    """The key to store: from the standard input or a variable of the environment, which no list of processes shows.

    None: the one that is stored stays; "": it goes.
    """
    if options["no_key"]:
        return ""
    if options["key_from"] is not None:
        found = os.environ.get(options["key_from"], "")
        if not found:
            raise CommandError(f"The variable {options['key_from']!r} is not set, or empty.")
        return found
    if not options["key_stdin"]:
        return None
    found = getpass.getpass("Key: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not found:
        raise CommandError("The standard input holds no key.")
    return found
