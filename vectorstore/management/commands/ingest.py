"""`manage.py ingest PATH…`: index files, folders and globs in a workspace."""

import asyncio
import glob
import os
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from accounts.commands import add_whose, workspace_of
from kernel import database
from kernel.conf import config as settings
from kernel.errors import ChainError
from kernel.text import storable
from llm.tasks import run_async
from vectorstore import files, ingestion
from vectorstore.errors import NoText, NotText, UnsupportedType
from vectorstore.manager import VectorStoreManager
from vectorstore.parsing import documents as parsing

#: Files in work at once: one is read while another one's passages are embedded.
_AT_ONCE = 3


@dataclass(frozen=True)
class Found:
    """A file to index; `named`: the caller asked for this very file, so not being able to is a failure."""

    path: Path
    named: bool


class Command(BaseCommand):
    help = "Index files, so that answers can cite them: text, Markdown, HTML, PDF, Word, CSV, JSON, e-mail."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder (with all below it) or a glob")
        add_whose(parser)
        parser.add_argument("--collection", metavar="NAME", help="the collection (default: %(default)s)")
        parser.add_argument("--queue", action="store_true", help="leave the work to the Celery workers")
        parser.set_defaults(collection=settings().vector_store.default_collection)

    def handle(self, *_: Any, **options: Any) -> None:
        found = [each for path in options["paths"] for each in _expanded(path)]
        # A file may be reached twice, by its folder and by its name.
        unique = {os.path.realpath(each.path): each for each in sorted(found, key=lambda each: each.named)}
        try:
            outcomes = run_async(self._ingest, list(unique.values()), options)
        except ChainError as error:
            raise CommandError(error.message) from error
        self.stdout.write(_summary(outcomes))
        if outcomes["failed"]:
            raise CommandError(f"{outcomes['failed']} of {len(unique)} files could not be indexed.")

    async def _ingest(self, found: Sequence[Found], options: dict[str, Any]) -> Counter[str]:
        workspace = await database.run(workspace_of, options["user"], options["workspace"])
        manager = VectorStoreManager(workspace.id)
        await manager.collection(options["collection"])
        outcomes: Counter[str] = Counter()
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        at_once = asyncio.Semaphore(_AT_ONCE)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("Indexing", total=len(found))

            async def one(each: Found) -> None:
                async with at_once:
                    outcome, reason = await _one(manager, each, options)
                outcomes[outcome] += 1
                if reason:
                    self.stderr.write(f"{outcome}: {_plain(reason)}")
                progress.advance(task)

            async with asyncio.TaskGroup() as group:
                for each in found:
                    group.create_task(one(each))
        return outcomes


async def _one(manager: VectorStoreManager, found: Found, options: dict[str, Any]) -> tuple[str, str]:
    """What became of the file, and why if it isn't indexed."""
    source = _source(found.path)
    try:
        data = await asyncio.to_thread(
            files.read_bytes, found.path, source=source, max_bytes=settings().vector_store.max_document_bytes
        )
        # Asked before it is taken in: what is no document leaves no trace.
        if not data.strip():
            raise NoText(f"{parsing.shown(source)} is empty.")
        parsing.sniff(data, name=source)
        made = await manager.submit(
            collection=options["collection"], source=source, content=data, name=source, tell=options["queue"]
        )
    except (NoText, NotText, UnsupportedType) as error:
        # Folders hold pictures and empty files too; only a file that was asked for by name must be a text.
        return ("failed" if found.named else "skipped"), error.message
    except ChainError as error:
        return "failed", error.message if source in error.message else f"{source}: {error.message}"
    if made.job_id is None:
        return ("skipped", f"{source}: {made.reason}") if made.reason else (made.outcome, "")
    if options["queue"]:
        return "queued", ""
    worked = await ingestion.work(made.job_id)
    if worked.outcome == "taken":
        return "queued", f"{source} is another worker's"
    reason = worked.reason if not worked.reason or source in worked.reason else f"{source}: {worked.reason}"
    return ("queued" if worked.outcome == "waiting" else worked.outcome), reason


def _expanded(pattern: str) -> Iterator[Found]:
    """The files that an argument stands for. Raises CommandError if it stands for none."""
    path = Path(pattern).expanduser()
    if not pattern.strip():
        # A shell's variable that isn't set; as a path it would be all that is here.
        raise CommandError("There is no file or folder of an empty name; `.` is the current folder.")
    if path.is_dir():
        yield from _below(path)
    elif os.path.lexists(path):
        yield Found(path, named=True)
    else:
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(pattern) else []  # noqa: PTH207  absolute patterns too
        if not matches:
            raise CommandError(f"There is no file or folder {pattern!r}.")
        for match in map(Path, matches):
            yield from _below(match) if match.is_dir() else [Found(match, named=False)]


def _below(folder: Path) -> Iterator[Found]:
    """Every file below a folder in a stable order, but hidden ones; links to folders are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Found(Path(place, name), named=False) for name in sorted(names) if not name.startswith("."))


def _source(path: Path) -> str:
    """A file's identity: its path from here, or its whole path if it lies elsewhere."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links and lose the name that people know
    here = Path.cwd()
    return storable(str(whole.relative_to(here) if whole.is_relative_to(here) else whole))


def _plain(text: str) -> str:
    """Without what a terminal would obey: names of files may hold anything."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _summary(outcomes: Counter[str]) -> str:
    names = [name for name in ("added", "updated", "unchanged", "queued", "skipped", "failed") if outcomes[name]]
    return ", ".join(f"{outcomes[name]} {name}" for name in names) or "No files found."
