from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("llm", "0002_platform")]

    operations = [
        migrations.AlterModelOptions(
            name="interactionlog",
            options={
                "permissions": [
                    ("read_interactionlog_texts", "Can read what the log kept of prompts and answers")
                ]
            },
        ),
    ]
