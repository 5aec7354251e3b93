"""Kernel's Django app: the settings check, and what migrations need."""

from django.apps import AppConfig

from kernel import migrating


class KernelConfig(AppConfig):
    name = "kernel"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from kernel import checks  # noqa: F401, PLC0415  registers itself; needs the app registry

        migrating.watch()
