"""Prompts in JSON files: what a file may hold, and bringing it into a workspace.

A file holds one prompt or a list of them; each is one of

    {"name": "support", "prompt_template": {…}, "input_variables": […], "optional_variables": […], "note": "…"}
    {"langchain_type": …, …}                                  a template by itself; the file's name is the prompt's
    {"model": "….prompt", "fields": {"name": …, …}}           as `manage.py dumpdata` writes it
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import transaction

from kernel.errors import ChainError, Invalid
from llm import versions
from llm.models import Prompt

MAX_BYTES = 5_000_000
MAX_PROMPTS = 1_000
_CONTENT = ("prompt_template", "input_variables", "optional_variables")
#: Keys of a row elsewhere that have no meaning here: numbers and people are this workspace's own.
_IGNORED = {"id", "version", "is_active", "created_at", "updated_at", "created_by", "updated_by", "workspace"}
_KNOWN = {"name", "note", "activate", *_CONTENT, *_IGNORED}


def load(path: Path) -> list[Prompt]:
    """The prompts of a file, each of which could be saved. Raises Invalid that names the key at fault."""
    found = _read(path)
    entries = found if isinstance(found, list) else [found]
    if len(entries) > MAX_PROMPTS:
        raise Invalid(f"a file may have {MAX_PROMPTS} prompts")
    prompts = []
    for index, entry in enumerate(entries):
        where = f"[{index}]." if isinstance(found, list) else ""
        try:
            prompts.append(_prompt(path, entry))
        except ChainError as error:
            raise Invalid(f"{where}{error.message}") from error
    return prompts


def bring_in(prompts: list[Prompt], workspace_id: UUID, *, activate: bool, dry_run: bool) -> Counter[str]:
    """Make a version of each prompt whose content is new: all or none. How many were added, changed and unchanged.

    `activate`: have what was brought in answer, also what was there already. `dry_run`: only say what would be.
    """
    outcomes: Counter[str] = Counter()
    with versions.changing(workspace_id):
        for prompt in prompts:
            outcomes[_bring_in(prompt, workspace_id, activate=activate)] += 1
        transaction.set_rollback(dry_run)
    return outcomes


def _bring_in(prompt: Prompt, workspace_id: UUID, *, activate: bool) -> str:
    rows = Prompt.objects.filter(workspace_id=workspace_id, name=prompt.name).order_by("version")
    last: Prompt | None = rows.last()
    content = {key: getattr(prompt, key) for key in _CONTENT}
    if last is not None and content == {key: getattr(last, key) for key in _CONTENT}:
        if activate:
            last.activate()
        return "unchanged"
    versions.create(
        Prompt, workspace_id, prompt.name, user_id=None, note=prompt.note or "Imported.", activate=activate, **content
    )
    return "added" if last is None else "changed"


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Invalid(f"can't be read ({error.strerror})") from error
    if len(text) > MAX_BYTES:
        raise Invalid(f"a file may have {MAX_BYTES} bytes")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Invalid(f"is no JSON: line {error.lineno}, column {error.colno}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Invalid("is no JSON in UTF-8") from error


def _prompt(path: Path, entry: Any) -> Prompt:
    fields = _fields(path, entry)
    if unknown := sorted(set(fields) - _KNOWN):
        raise Invalid(f"{unknown[0]}: unknown key; known: {', '.join(sorted(_KNOWN - _IGNORED))}")
    for key in ("name", "prompt_template"):
        if not fields.get(key):
            raise Invalid(f"{key}: every prompt has one")
    if not isinstance(fields.get("note", ""), str):
        raise Invalid("note: a text")
    given = {key: fields[key] for key in (*_CONTENT, "note") if fields.get(key) is not None}
    prompt = Prompt(name=fields["name"], **given)
    prompt.note = prompt.note[:500]
    versions.check(prompt)
    return prompt


def _fields(path: Path, entry: Any) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise Invalid("a prompt is an object")
    if "langchain_type" in entry:
        return {"name": path.stem, "prompt_template": entry}
    if "fields" in entry and "model" in entry:
        if not str(entry["model"]).lower().endswith(".prompt") or not isinstance(entry["fields"], dict):
            raise Invalid("model: only rows of prompts are brought in")
        return entry["fields"]
    return entry
