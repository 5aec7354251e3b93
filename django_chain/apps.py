from django.apps import AppConfig


class DjangoChainConfig(AppConfig):
    name = "django_chain"
    default_auto_field = "django.db.models.BigAutoField"
