"""The check of the database's role."""

import pytest
from django.core.checks import run_checks
from django.db import connection

from vectorstore import checks

pytestmark = pytest.mark.django_db


def test_the_role_of_the_embedded_database_is_held_by_row_security():
    assert [each for each in run_checks(databases=["default"]) if each.id == "vectorstore.W001"] == []


def test_a_role_that_passes_it_is_warned_of():
    class Superuser:
        """What PostgreSQL would say of one; the real role can't be made one by itself."""

        def __call__(self, execute, sql, params, many, context):
            return execute(sql.replace("rolsuper OR rolbypassrls", "true"), params, many, context)

    with connection.execute_wrapper(Superuser()):
        (warning,) = checks.row_security(databases=["default"])
    assert warning.id == "vectorstore.W001"
    assert "BYPASSRLS" in warning.hint
