from django.apps import AppConfig


class VectorstoreConfig(AppConfig):
    name = "vectorstore"
    default_auto_field = "django.db.models.BigAutoField"
