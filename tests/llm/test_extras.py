"""Optional packages: a missing one is an error that names what to install."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

HIDDEN = """
import os, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
os.environ["DJANGO_SETTINGS_MODULE"] = "django_chain.settings"
import django
django.setup()
from kernel.errors import Misconfigured
from llm.registry import llm_providers
try:
    llm_providers.get({adapter!r})
except Misconfigured as error:
    print(error.message)
"""


@pytest.mark.parametrize(
    ("adapter", "module"), [("google", "langchain_google_genai"), ("huggingface", "langchain_huggingface")]
)
def test_a_missing_package_is_an_error_that_names_the_extra(adapter: str, module: str) -> None:
    code = HIDDEN.format(adapter=adapter, module=module)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f'pip install "django-chain[{adapter}]"' in done.stdout
    assert module in done.stdout
