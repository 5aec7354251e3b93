"""`python -m django_chain demo` runs everything on this machine; any other command is Django's."""

import os
import sys


def main() -> None:
    if sys.argv[1:2] == ["demo"]:
        # The demo starts Django only as children, after the services that the settings name.
        from django_chain.embedded.demo import main as demo  # noqa: PLC0415

        sys.exit(demo())
    # Its import would slow the demo's start.
    from django.core.management import execute_from_command_line  # noqa: PLC0415

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_chain.settings")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
