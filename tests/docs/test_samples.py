"""Every Python sample of the documentation runs, page by page, in the order and the names that a reader has.

What a page takes for granted (a workspace, a class of the reader's) comes from `setups/<page>.py`, which may also check
what the samples have led to. A `DJANGO_CHAIN` of a sample is parsed, its models are built, and it holds for the rest of
the page. The page about other projects is run as one: see test_embedding.py.
"""

import ast
import asyncio
import inspect
from collections.abc import Iterator
from copy import deepcopy
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pytest_django import Settings

import django_chain.settings
from kernel.conf import config
from llm import aliases, registry
from tests.conftest import Person
from tests.docs.pages import PAGES, Block, blocks, name_of

_REGISTRIES = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]
_RUN_HERE = [page for page in PAGES if page.name != "embed-in-your-project.md" and blocks(page, "python")]


@pytest.fixture(autouse=True)
def _registries_stay_as_they_were() -> Iterator[None]:
    before = [dict(each._entries) for each in _REGISTRIES]
    yield
    for each, entries in zip(_REGISTRIES, before, strict=True):
        each._entries = entries
        each.revision += 1


@pytest.mark.filterwarnings(
    "ignore:.langchain-community. is being sunset:DeprecationWarning"
)  # Hugging Face's imports it
@pytest.mark.parametrize("page", _RUN_HERE, ids=name_of)
async def test_samples_run(page: Path, person: Person, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    # A page may change the project's dict in place.
    monkeypatch.setattr(django_chain.settings, "DJANGO_CHAIN", deepcopy(settings.DJANGO_CHAIN))
    setup = _setup(page)
    names: dict[str, Any] = {"__name__": f"docs.{page.stem}"}
    if setup is not None:
        names |= await setup.names(person, monkeypatch)
    await _apply(names, settings)
    for block in blocks(page, "python"):
        await _run(block, names)
        await _apply(names, settings)
    if setup is not None and hasattr(setup, "check"):
        await setup.check(names)


def _setup(page: Path) -> ModuleType | None:
    name = f"tests.docs.setups.{'index' if page.name == 'README.md' else page.stem.replace('-', '_')}"
    return import_module(name) if find_spec(name) else None


async def _run(block: Block, names: dict[str, Any]) -> None:
    """Run a block; a traceback names the page and the line."""
    source = "\n" * (block.line - 1) + block.text
    code = compile(source, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.iscoroutine(result):
        await result


async def _apply(names: dict[str, Any], settings: Settings) -> None:
    """Take the settings of a sample or a setup over ours, and build what they name."""
    given = names.pop("DJANGO_CHAIN", None)
    if given is None:
        return
    settings.DJANGO_CHAIN = {**settings.DJANGO_CHAIN, **given}
    if "LLM" in given:
        for alias in config().llm.models:
            await asyncio.to_thread(aliases.warm, alias)
    if "EMBEDDINGS" in given:
        options = config().embeddings
        factory = registry.embedding_providers.get(options.provider)
        factory({"model": options.model, "dimension": options.dimension, **options.options})
