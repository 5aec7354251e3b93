"""Prepare a database beside the tests' own: migrate it, add a user, print a token.

`python -m tests.support.second_database`, with DATABASE_URL in the environment: a Django process has one default
database, and the test's own is another.
"""

import contextlib
import io
import os

import django


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    from accounts import tokens

    with contextlib.redirect_stdout(io.StringIO()):
        call_command("migrate", verbosity=0)
    print(tokens.mint(get_user_model().objects.create_user("someone", "someone@example.org", "correct horse")))


if __name__ == "__main__":
    main()
