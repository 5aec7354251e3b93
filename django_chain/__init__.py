"""Django Chain: the real-time LLM chat backend for Django."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django_chain.celery import app as celery_app

__all__ = ["__version__", "celery_app"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`celery_app` on first use: a server that queues nothing doesn't load Celery."""
    if name == "celery_app":
        # Django's settings are not ready when this package is first imported.
        from django_chain.celery import app  # noqa: PLC0415

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
