from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_cache_and_workspaces")]

    operations = [
        migrations.AddIndex(
            model_name="workspace",
            index=models.Index(fields=["name"], name="workspace_by_name", opclasses=["varchar_pattern_ops"]),
        ),
    ]
