"""Commands in the documentation exist, with the options and the paths that are shown."""

import argparse
import re
import shlex
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from daphne.cli import CommandLineInterface
from django.core.management import get_commands, load_command_class
from django.core.management.base import CommandError
from django.urls import resolve

from tests.docs.pages import PAGES, ROOT, blocks, name_of

_SH = [
    pytest.param(shlex.split(line, comments=True), id=f"{name_of(page)}: {line[:60]}")
    for page in PAGES
    for block in blocks(page, "sh")
    for line in block.text.splitlines()
    if line.strip()
]
#: README shows its commands as indented text: `make demo     what it does`.
_INDENTED = re.compile(r"^    (make|\.venv/bin/python manage\.py) (.+)$", re.MULTILINE)
_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("words", _SH)
def test_a_command_is_one_that_exists(words: list[str]) -> None:
    _check(words)


def test_the_commands_of_the_readme_exist() -> None:
    found = _INDENTED.findall((ROOT / "README.md").read_text())
    made = [rest.split()[0] for program, rest in found if program == "make"]
    assert {"demo", "test"} <= set(made)
    for program, rest in found:
        _check(["make", rest.split()[0]] if program == "make" else shlex.split(f"{program} {rest}"))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"], ids=name_of)
def test_a_target_of_make_that_a_text_names_exists(page: Any) -> None:
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert named <= _TARGETS, named - _TARGETS


def _check(words: list[str]) -> None:
    words = [word for number, word in enumerate(words) if number or "=" not in word]
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")
    if program == "python":
        program, *arguments = arguments if arguments[0] != "-m" else [f"-m {arguments[1]}", *arguments[2:]]
    assert program in _CHECKS, f"say in {__name__} how a command of {program!r} is checked"
    _CHECKS[program](arguments)


def _manage(arguments: list[str]) -> None:
    name, *rest = arguments
    assert name in get_commands(), f"there is no manage.py {name}"
    app = get_commands()[name]
    command = load_command_class(app, name) if isinstance(app, str) else app
    try:
        command.create_parser("manage.py", name).parse_args(rest)
    except (CommandError, SystemExit) as error:
        raise AssertionError(f"manage.py {shlex.join(arguments)}: {error}") from error


def _make(arguments: list[str]) -> None:
    assert {word for word in arguments if "=" not in word} <= _TARGETS


def _uvicorn(arguments: list[str]) -> None:
    # Its command line is only needed here.
    from uvicorn.main import main

    with main.make_context("uvicorn", list(arguments)) as context:
        module = context.params["app"].partition(":")[0]
    if not module.startswith("mysite"):
        import_module(module)


def _daphne(arguments: list[str]) -> None:
    options: argparse.Namespace = CommandLineInterface().parser.parse_args(arguments)
    assert hasattr(import_module(options.application.partition(":")[0]), "application")


def _celery(arguments: list[str]) -> None:
    from celery.bin.celery import celery

    assert arguments[:2] == ["-A", "django_chain"]
    command = celery.commands[arguments[2]]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in arguments[3:] if word.startswith("-")} <= known


def _compose(arguments: list[str]) -> None:
    assert arguments[0] == "compose"
    services = (ROOT / "compose.yaml").read_text()
    match arguments[1:]:
        case ["build"] | ["up", "-d"] | ["ps"]:
            pass
        case ["run", "--rm", *rest]:
            while rest[0] == "-v":
                rest = rest[2:]
            assert f"\n  {rest[0]}:\n" in services
            _check(rest[1:])
        case other:
            raise AssertionError(f"say in {__name__} how `docker compose {shlex.join(other)}` is checked")


def _curl(arguments: list[str]) -> None:
    resolve("/" + arguments[-1].split("/", 3)[3])


_CHECKS: dict[str, Callable[[list[str]], None]] = {
    "manage.py": _manage,
    "make": _make,
    "uvicorn": _uvicorn,
    "-m django_chain.daphne": _daphne,
    "celery": _celery,
    "docker": _compose,
    "curl": _curl,
}
