from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("chat", "0004_branches")]

    operations = [migrations.AlterModelOptions(name="chathistory", options={"verbose_name": "message"})]
