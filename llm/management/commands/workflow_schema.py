"""`manage.py workflow_schema`: write the JSON schema of workflows; with `--check`, only compare it."""

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    help = "Write docs/workflow.schema.json from the steps that are registered, or print it."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--check", action="store_true", help="write nothing; fail if the file is not up to date")
        what.add_argument("--print", action="store_true", dest="shown", help="print it, with your own steps in it")

    def handle(self, *args: Any, check: bool, shown: bool, **options: Any) -> None:
        # It imports every registered step, and LangChain with them: not when commands are listed.
        from llm import workflows  # noqa: PLC0415

        text = json.dumps(workflows.json_schema(), indent=2, ensure_ascii=False) + "\n"
        file = Path(settings.BASE_DIR) / "docs" / "workflow.schema.json"
        if shown:
            self.stdout.write(text, ending="")
        elif not file.exists() or file.read_text("utf-8") != text:
            if check:
                raise CommandError("docs/workflow.schema.json is not up to date. Run `manage.py workflow_schema`.")
            file.write_text(text, "utf-8")
            self.stdout.write("wrote docs/workflow.schema.json")
