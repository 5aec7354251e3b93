"""What commands share: in whose workspace they work."""

from argparse import ArgumentParser
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError

from accounts.models import Workspace


def add_whose(parser: ArgumentParser, *, required: bool = False) -> None:
    """`--user` and `--workspace`, of which at most one is given."""
    whose = parser.add_mutually_exclusive_group(required=required)
    whose.add_argument("--user", metavar="NAME", help="in this person's own workspace")
    whose.add_argument("--workspace", metavar="ID", help="in this workspace")


def workspace_of(user: str | None, workspace: str | None) -> Workspace:
    """The workspace that was named, or that of the only user (database work).

    Raises CommandError that says how to name one.
    """
    if workspace is not None:
        return _by_id(workspace)
    users = get_user_model().objects
    people = users.filter(**{get_user_model().USERNAME_FIELD: user}) if user is not None else users.all()
    count = people.count()
    if user is not None and not count:
        raise CommandError(f"There is no user {user!r}.")
    if count != 1:
        fix = "name one with --user NAME or --workspace ID" if count else "make one with `manage.py createsuperuser`"
        raise CommandError(f"There are {count} users, so whose workspace it is is not clear: {fix}.")
    found = Workspace.objects.filter(personal_of=people.get()).first()
    if found is None:
        raise CommandError(f"{people.get()} has no personal workspace: name one with --workspace ID.")
    return found


def _by_id(text: str) -> Workspace:
    try:
        return Workspace.objects.get(id=UUID(text))
    except (ValueError, Workspace.DoesNotExist) as error:
        raise CommandError(f"There is no workspace {text!r}.") from error
