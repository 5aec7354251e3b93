"""What the project's log leaves out, whoever logs."""

import os
import subprocess
import sys

import pytest

_LOGS = """
for name in ("uvicorn.error", "uvicorn.access", "daphne.server", "celery.task", "asyncio", "django.request", "any"):
    try:
        raise RuntimeError("sword" + "fish")
    except RuntimeError:
        logging.getLogger(name).exception("logger=%s api_key=Zq4vT8nB", name)
"""
#: What each process does to logging before it works.
_BEGINS = {
    "uvicorn": """
import logging.config
from uvicorn.config import LOGGING_CONFIG
logging.config.dictConfig(LOGGING_CONFIG)
import django
django.setup()
""",
    "celery": """
import logging
from django_chain.celery import app
app.log.setup(loglevel="INFO")
""",
}


@pytest.mark.parametrize("process", _BEGINS)
def test_no_logger_writes_secrets_or_the_texts_of_exceptions(process: str) -> None:
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "django_chain.settings"}
    code = _BEGINS[process] + _LOGS
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    told = done.stdout + done.stderr
    assert told.count("builtins.RuntimeError") == told.count("[redacted:secret]") == 7
    assert "Zq4vT8nB" not in told
    assert "swordfish" not in told
