"""Each question says which message it follows, each session where its active branch ends."""

from django.db import migrations, models
from django.db.models import OuterRef, Subquery


def link(apps, schema_editor):
    ChatHistory = apps.get_model("chat", "ChatHistory")
    ChatSession = apps.get_model("chat", "ChatSession")
    before = ChatHistory.objects.filter(
        session_id=OuterRef("session_id"), role="ASSISTANT", order__lt=OuterRef("order")
    ).order_by("-order")
    ChatHistory.objects.filter(role="USER", parent=None).update(parent_id=Subquery(before.values("id")[:1]))
    newest = ChatHistory.objects.filter(session_id=OuterRef("pk")).order_by("-order")
    ChatSession.objects.update(head_id=Subquery(newest.values("id")[:1]))


class Migration(migrations.Migration):
    dependencies = [("chat", "0003_chatsession_workflow_pinned")]

    operations = [
        migrations.AddField("chatsession", "head_id", models.UUIDField(blank=True, editable=False, null=True)),
        migrations.AddField("chatsession", "memory_epoch", models.PositiveIntegerField(default=0, editable=False)),
        # Last: PostgreSQL changes no table whose rows have checks that wait for the commit.
        migrations.RunPython(link, migrations.RunPython.noop),
    ]
