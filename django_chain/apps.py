from typing import TYPE_CHECKING

from django.apps import AppConfig

from kernel import jobs

if TYPE_CHECKING:
    from celery import Celery


class DjangoChainConfig(AppConfig):
    name = "django_chain"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        jobs.use(_celery)


def _celery() -> "Celery":
    # A process that queues nothing doesn't load Celery.
    from django_chain.celery import app  # noqa: PLC0415

    return app
