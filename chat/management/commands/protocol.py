"""`manage.py protocol`: write the protocol's reference; with `--check`, only compare it."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from chat import reference


class Command(BaseCommand):
    help = "Write docs/protocol.md and docs/asyncapi.yaml from the types in chat/protocol.py."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")

    def handle(self, *args: Any, check: bool, **options: Any) -> None:
        docs = Path(settings.BASE_DIR) / "docs"
        wanted = {docs / "protocol.md": reference.markdown(), docs / "asyncapi.yaml": reference.asyncapi()}
        stale = [file for file, text in wanted.items() if not file.exists() or file.read_text("utf-8") != text]
        if check and stale:
            names = ", ".join(file.name for file in stale)
            raise CommandError(f"Not up to date: {names}. Run `manage.py protocol`.")
        for file in stale:
            file.write_text(wanted[file], "utf-8")
            self.stdout.write(f"wrote {file.relative_to(docs.parent)}")
