"""The reader has a workspace, and there is another one."""

from typing import Any

import pytest

from accounts.access import workspace_for
from kernel import database
from tests.conftest import Person, make_person


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    other = await database.run(make_person)
    return {
        "workspace": await database.run(workspace_for, person.caller),
        "other_workspace": await database.run(workspace_for, other.caller),
    }
