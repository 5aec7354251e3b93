"""Kernel's Django app: it only brings the settings check."""

from django.apps import AppConfig


class KernelConfig(AppConfig):
    name = "kernel"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from kernel import checks  # noqa: F401, PLC0415  registers itself; needs the app registry
