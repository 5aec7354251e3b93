"""The table of the sign-in's counters, and a personal workspace for people who were here before this app."""

from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import migrations

CACHE_TABLE = "accounts_cache"


def make_cache_table(apps: Any, schema_editor: Any) -> None:
    call_command("createcachetable", CACHE_TABLE, database=schema_editor.connection.alias, verbosity=0)


def give_everyone_a_workspace(apps: Any, schema_editor: Any) -> None:
    user = apps.get_model(*settings.AUTH_USER_MODEL.split("."))
    workspace, membership = apps.get_model("accounts", "Workspace"), apps.get_model("accounts", "Membership")
    for person in user.objects.filter(personal_workspace=None).iterator():
        name = getattr(person, "username", None) or f"User {person.pk}"
        own = workspace.objects.create(name=f"{name}'s workspace"[:200], personal_of=person)
        membership.objects.create(workspace=own, user=person, role="owner")


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [
        migrations.RunPython(make_cache_table, migrations.RunPython.noop),
        migrations.RunPython(give_everyone_a_workspace, migrations.RunPython.noop),
    ]
