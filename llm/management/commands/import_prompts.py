"""`manage.py import_prompts PATH…`: bring prompts of JSON files into a workspace."""

import glob
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.commands import add_whose, workspace_of
from kernel.errors import ChainError
from llm import prompt_files


class Command(BaseCommand):
    help = "Bring prompts of JSON files into a workspace; what is unchanged makes no new version."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("paths", nargs="+", metavar="PATH", help="a JSON file, a folder of them, or a glob")
        add_whose(parser, required=True)
        parser.add_argument("--activate", action="store_true", help="have the prompts answer at once")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")

    def handle(self, *_: Any, **options: Any) -> None:
        workspace = workspace_of(options["user"], options["workspace"])
        # A file may be reached twice, by its folder and by its name.
        files = dict.fromkeys(file.resolve() for path in options["paths"] for file in _expanded(path))
        outcomes: Counter[str] = Counter()
        for file in files:
            try:
                prompts = prompt_files.load(file)
                outcomes += prompt_files.bring_in(
                    prompts, workspace.id, activate=options["activate"], dry_run=options["dry_run"]
                )
            except ChainError as error:
                outcomes["failed"] += 1
                self.stderr.write(f"{file}: {error.message}")
        would = " (nothing was saved)" if options["dry_run"] else ""
        self.stdout.write(_summary(outcomes) + would)
        if outcomes["failed"]:
            raise CommandError(f"{outcomes['failed']} of {len(files)} files were not brought in.")


def _expanded(pattern: str) -> Iterator[Path]:
    """The files that an argument stands for. Raises CommandError if it stands for none."""
    path = Path(pattern).expanduser()
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*.json") if file.is_file())
    elif path.exists():
        yield path
    else:
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(pattern) else []  # noqa: PTH207  absolute patterns too
        if not matches:
            raise CommandError(f"There is no file or folder {pattern!r}.")
        yield from (Path(match) for match in matches if Path(match).is_file())


def _summary(outcomes: Counter[str]) -> str:
    names = [name for name in ("added", "changed", "unchanged", "failed") if outcomes[name]]
    return ", ".join(f"{outcomes[name]} {name}" for name in names) or "No prompts found."
