"""Settings of the tests' own process: the project's, on real servers of its own."""

import json
import os
from typing import Any

from tests.support import services

os.environ.update(services.environment())
os.environ.setdefault("DEBUG", "0")
os.environ.setdefault("SECRET_KEY", "tests-only")
os.environ.setdefault("LLM_PROVIDER", "fake")
os.environ.setdefault("LOG_LEVEL", "WARNING")

from django_chain.settings import *  # noqa: F403
from django_chain.settings import DATABASES, DJANGO_CHAIN, INSTALLED_APPS

DATABASES["default"]["TEST"] = {"NAME": services.TEST_DATABASE}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
INSTALLED_APPS = [*INSTALLED_APPS, "tests.support.faults"]


def _merge(into: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


# What a server under test is to do otherwise, as JSON: '{"CHAT": {"HELLO_TIMEOUT": 0.5}}'.
_merge(DJANGO_CHAIN, json.loads(os.environ.get("DJANGO_CHAIN_OVERRIDES", "{}")))
