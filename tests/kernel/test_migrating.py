"""A migration of a large table may take longer than any request."""

from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

pytestmark = pytest.mark.django_db(transaction=True)


def bounds() -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout')")
        return dict(cursor.fetchall())


def test_a_migration_has_no_bound_but_on_its_locks_and_requests_have_theirs_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = bounds()
    assert "0" not in asked.values()
    seen: list[dict[str, str]] = []
    migrate = MigrationExecutor.migrate

    def look(*args: Any, **kwargs: Any) -> Any:
        seen.append(bounds())
        return migrate(*args, **kwargs)

    monkeypatch.setattr(MigrationExecutor, "migrate", look)
    call_command("migrate", verbosity=0)
    assert seen == [asked | {"statement_timeout": "0"}]
    assert bounds() == asked
