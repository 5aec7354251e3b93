"""The reader has a workspace."""

from typing import Any

import pytest

from accounts.access import workspace_for
from kernel import database
from llm.answer_cache import opened
from llm.registry import answer_caches
from tests.conftest import Person


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    workspace = await database.run(workspace_for, person.caller)
    return {"workspace_id": workspace.id}


async def check(names: dict[str, Any]) -> None:
    assert names["first"].text == names["again"].text == "once"
    try:
        assert opened({"kind": "remembered", "ttl": 5}).ttl == 5
    finally:
        answer_caches.remove("remembered")
