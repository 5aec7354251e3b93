"""`manage.py reembed COLLECTION MODEL`: a collection's vectors from another model, while people search it."""

import asyncio
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from accounts.commands import add_whose, workspace_of
from kernel.conf import config as settings
from kernel.errors import ChainError
from llm.embeddings.embedder import embedder
from llm.tasks import run_async
from vectorstore import reembedding
from vectorstore.scope import Scope
from vectorstore.values import Space

#: Seconds between looks at a set that another worker fills.
_LOOK = 1.0


class Command(BaseCommand):
    help = "Make a collection's vectors anew, with another model or in another store; searches go on meanwhile."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("collection", metavar="COLLECTION", help="its name")
        parser.add_argument("model", metavar="MODEL", help="an alias of EMBEDDINGS['MODELS'], or 'default'")
        parser.add_argument("--backend", metavar="NAME", help="the store (default: the one of the settings)")
        parser.add_argument("--cancel", action="store_true", help="give up what is under way")
        add_whose(parser, required=True)

    def handle(self, *_: Any, **options: Any) -> None:
        workspace = workspace_of(options["user"], options["workspace"])
        try:
            run_async(self._work, Scope(workspace.id), options)
        except ChainError as error:
            raise CommandError(error.message) from error

    async def _work(self, scope: Scope, options: dict[str, Any]) -> None:
        collection_id = await scope.run(_collection, options["collection"])
        if options["cancel"]:
            given_up = await scope.run(reembedding.cancel, collection_id)
            self.stdout.write("Given up." if given_up else "There was nothing under way.")
            return
        made = embedder(options["model"])
        space = Space(model=made.model, dimension=made.dimension)
        backend = options["backend"] or settings().vector_store.backend
        set_id = await scope.run(reembedding.begin, collection_id, space, backend)
        outcome, after = "unfinished", None
        while outcome == "unfinished":
            outcome, after = await reembedding.work(set_id, after)
            if outcome == "lost":
                outcome = await self._watch(scope, collection_id)
        if outcome == "failed":
            now = await reembedding.progress(scope, collection_id)
            raise CommandError(f"{now.reason if now else 'It failed.'} A worker tries again; --cancel gives it up.")
        self.stdout.write(f"Searches in {options['collection']} ask {space.model} in {backend} now.")

    async def _watch(self, scope: Scope, collection_id: UUID) -> str:
        """While a worker has it."""
        while (now := await reembedding.progress(scope, collection_id)) is not None:
            self.stdout.write(f"{now.done} of {now.total} passages")
            if now.reason:
                return "failed"
            await asyncio.sleep(_LOOK)
        return "switched"


def _collection(scope: Scope, name: str) -> UUID:
    found = scope.collections.filter(name=name).values_list("id", flat=True).first()
    if found is None:
        raise CommandError(f"There is no collection {name!r}.")
    identity: UUID = found
    return identity
