"""The reader has a workspace."""

from typing import Any

import pytest

from accounts.access import workspace_for
from kernel import database
from tests.conftest import Person


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"workspace": await database.run(workspace_for, person.caller)}
