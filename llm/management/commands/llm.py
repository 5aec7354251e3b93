"""`manage.py llm …`: look at models, try one, and keep their prices, keys and figures, in a terminal."""

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any, TextIO, cast

from asgiref.sync import async_to_sync
from django.core.management.base import BaseCommand, CommandError

from kernel.errors import ChainError
from llm.terminal import hits, models, money, places, statistics
from llm.terminal.paper import Paper

_Run = Callable[[Paper, dict[str, Any]], None]


class Command(BaseCommand):
    help = "List the models, test one, set aliases and prices, and show what was called and what it cost."

    def add_arguments(self, parser: ArgumentParser) -> None:
        kinds = parser.add_subparsers(dest="what_to_do", metavar="COMMAND", required=True)

        def add(name: str, run: _Run, text: str) -> ArgumentParser:
            added: ArgumentParser = kinds.add_parser(name, help=text, description=text)
            added.add_argument("--json", action="store_true", help="one JSON text for programs")
            added.set_defaults(run=run)
            return added

        _whose(add("list", models.list_models, "Aliases and routes: where each comes from, its key and its price."))
        _try(add("test", _test, "Ask a model one question, and show how long it took and what it cost."))
        _price(add("prices", money.show_prices, "Show the prices, set one, or check which models have none."))
        _figure(add("stats", statistics.show_statistics, "Calls, tokens, cost, times and failures."))
        _set(add("set", models.set_model, "Set what an alias means, as a whole; rows win over the settings."))
        unset = _whose(add("unset", models.unset_model, "Let an alias mean again what is beneath its row."))
        unset.add_argument("alias", metavar="ALIAS")
        add("rotate-keys", models.rotate_keys, "Encrypt the stored keys with the first of LLM['ENCRYPTION_KEYS'].")
        _ask_server(add("caches", hits.show_caches, "How often the caches of a running server process have helped."))

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            options["run"](Paper(cast("TextIO", self.stdout), as_json=options["json"]), options)
        except ChainError as error:
            raise CommandError(f"{error.code}: {error.message}") from error


def _test(paper: Paper, options: dict[str, Any]) -> None:
    # It brings LangChain with it, which no other subcommand needs.
    from llm.terminal import trial  # noqa: PLC0415

    workspace = places.workspace_id(options["workspace"])
    holding = places.configuration_of(workspace)
    ask = async_to_sync(trial.ask)
    paper.facts(ask(options["alias"], options["question"], holding, logged=workspace is not None))


def _whose(parser: ArgumentParser) -> ArgumentParser:
    parser.add_argument("--workspace", metavar="ID", help="as it holds there (default: for all workspaces)")
    return parser


def _try(parser: ArgumentParser) -> None:
    _whose(parser)
    parser.add_argument("alias", metavar="ALIAS", nargs="?", default="", help="an alias or a route (default: default)")
    parser.add_argument("--question", default="Say hello.", help="(default: %(default)r)")


def _price(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=["list", "check"], default="list", help="(default: %(default)s)")
    parser.add_argument("--set", metavar="PROVIDER/MODEL", help="/MODEL: with every provider")
    parser.add_argument("--input", metavar="AMOUNT", help="for a million tokens")
    parser.add_argument("--output", metavar="AMOUNT", help="for a million tokens")
    parser.add_argument("--cached", metavar="AMOUNT", help="for input that the provider had kept (default: as --input)")
    parser.add_argument("--from", metavar="TIME", help="when it begins (default: now)")


def _figure(parser: ArgumentParser) -> None:
    parser.add_argument("--days", type=int, default=1, help="up to now (default: %(default)s)")
    parser.add_argument(
        "--by", default="model", help="any of model, alias, workflow, user, workspace, day (default: %(default)s)"
    )
    parser.add_argument("--workspace", metavar="ID", help="only of this workspace")


def _set(parser: ArgumentParser) -> None:
    _whose(parser)
    parser.add_argument("alias", metavar="ALIAS")
    parser.add_argument("--provider", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--base-url", metavar="URL", default="", help="one of LLM['ALLOWED_BASE_URLS']")
    parser.add_argument("--option", metavar="NAME=VALUE", action="append", default=[], help="as temperature=0.2")
    parser.add_argument("--bound", metavar="NAME=VALUE", action="append", default=[], help="as TOTAL_TIMEOUT=60")
    parser.add_argument("--route", metavar="ALIAS,…", default="", help="a route over these aliases, and no model")
    parser.add_argument("--strategy", default="fallback", help="of the route (default: %(default)s)")
    parser.add_argument("--weights", metavar="N,…", default="", help="of a weighted route")
    key = parser.add_mutually_exclusive_group()
    key.add_argument("--key-stdin", action="store_true", help="store the key that the standard input holds")
    key.add_argument("--key-from", metavar="NAME", help="store the key that this variable of the environment holds")
    key.add_argument("--key-variable", metavar="NAME", default="", help="let servers take it from this variable")
    key.add_argument("--no-key", action="store_true", help="drop the stored key")


def _ask_server(parser: ArgumentParser) -> None:
    parser.add_argument("--url", help="the server (default: CHAIN_URL, or http://127.0.0.1:8000)")
    parser.add_argument("--user", metavar="NAME", help="of the staff (default: DJANGO_CHAIN_TOKEN, or anyone)")
