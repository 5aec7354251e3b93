"""Settings of the tests' own process: the project's, on real servers of its own."""

import os

from tests.support import services

os.environ.update(services.environment())
os.environ.setdefault("DEBUG", "0")
os.environ.setdefault("SECRET_KEY", "tests-only")
os.environ.setdefault("LLM_PROVIDER", "fake")
os.environ.setdefault("LOG_LEVEL", "WARNING")

from django_chain.settings import *  # noqa: E402, F403
from django_chain.settings import DATABASES, INSTALLED_APPS  # noqa: E402

DATABASES["default"]["TEST"] = {"NAME": services.TEST_DATABASE}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
INSTALLED_APPS = [*INSTALLED_APPS, "tests.support.faults"]
