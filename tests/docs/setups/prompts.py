"""The reader has a workspace."""

from typing import Any

import pytest

from accounts.access import workspace_for
from kernel import database
from llm import configuration
from llm.models import Prompt
from tests.conftest import Person


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"workspace": await database.run(workspace_for, person.caller), "user": person.user}


async def check(names: dict[str, Any]) -> None:
    known = await configuration.current(names["workspace"].id)
    assert known.splits == {"support": {1: 90, 2: 10}}
    answering = await known.prompt("support")
    assert answering is not None
    assert answering.version == 1
    rows = Prompt.objects.filter(workspace=names["workspace"]).order_by("version")
    assert await database.run(lambda: [row.note for row in rows]) == ["In the customer's language", ""]
