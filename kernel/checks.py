"""`manage.py check` for the `DJANGO_CHAIN` setting."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from kernel.conf import parse
from kernel.errors import Misconfigured


@register()
def check_setting(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E001: the setting has a wrong or an unknown key."""
    try:
        parse(getattr(settings, "DJANGO_CHAIN", {}))
    except Misconfigured as error:
        return [Error(error.message, hint="See docs/settings.md for every key.", id="django_chain.E001")]
    return []
