"""`manage.py search QUERY`: what a question finds in a workspace's documents."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from accounts.commands import add_whose, workspace_of
from kernel import database
from kernel.errors import ChainError, Invalid
from llm.tasks import run_async
from vectorstore.manager import VectorStoreManager
from vectorstore.values import Hit


class Command(BaseCommand):
    help = "Search a workspace's documents."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("query", metavar="QUERY", help="a question, or words")
        add_whose(parser)
        parser.add_argument("--collection", metavar="NAME", help="the collection's name or id (else the default one)")
        parser.add_argument("--mode", choices=("vector", "text", "hybrid"), default="hybrid")
        parser.add_argument("--k", type=int, default=4, help="at most so many passages (%(default)s)")
        parser.add_argument("--where", metavar="JSON", help="""a filter, such as '{"eq": {"lang": "en"}}'""")
        parser.add_argument("--rerank", metavar="NAME", default="", help="a registered reranker, such as lexical")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            hits = run_async(_search, options)
        except ChainError as error:
            raise CommandError(error.message) from error
        if options["json"]:
            self.stdout.write(json.dumps({"hits": [hit.as_json() for hit in hits]}, indent=2, ensure_ascii=False))
        elif hits:
            Console(file=self.stdout).print(_table(hits))  # type: ignore[arg-type]  # Django's wrapper writes like a file
        else:
            self.stdout.write("Nothing found.")


async def _search(options: dict[str, Any]) -> list[Hit]:
    workspace = await database.run(workspace_of, options["user"], options["workspace"])
    return await VectorStoreManager(workspace.id).search(
        options["query"],
        must_exist=options["collection"] is not None,
        collection=_named(options["collection"]),
        mode=options["mode"],
        k=options["k"],
        where=_where(options["where"]),
        rerank=options["rerank"],
    )


def _named(collection: str | None) -> str | UUID | None:
    try:
        return UUID(collection or "")
    except ValueError:
        return collection


def _where(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"--where is no JSON: {text[:60] if text else ''!r}.") from error


def _table(hits: Sequence[Hit]) -> Table:
    table = Table(show_lines=True)
    for name in ("score", "document", "passage"):
        table.add_column(name, overflow="fold")
    for hit in hits:
        page = "" if hit.page is None else f", page {hit.page}"
        # Text, so that brackets in a document are no markup.
        table.add_row(f"{hit.score:.3f}", Text(f"{hit.title}\n{hit.source}{page}"), Text(hit.text))
    return table
