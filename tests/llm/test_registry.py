"""Names for pluggable parts."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from django_chain import providers
from kernel.errors import Misconfigured
from llm.registry import Registry, llm_providers
from tests.llm.conftest import Configure


def one(config: dict[str, Any]) -> str:
    return f"one {config}"


def two(config: dict[str, Any]) -> str:
    return f"two {config}"


@pytest.fixture
def registry() -> Registry[Any]:
    return Registry("toy")


def test_a_decorated_factory_is_found_and_stays_itself(registry: Registry[Any]) -> None:
    assert registry.register("one")(one) is one
    assert registry.get("one") is one


def test_a_string_is_imported_on_first_use(registry: Registry[Any]) -> None:
    registry.add("one", "tests.llm.test_registry:one")

    assert registry.get("one")({}) == "one {}"


def test_a_name_taken_by_another_object_is_an_error_that_names_both(registry: Registry[Any]) -> None:
    registry.add("toy", one)

    with pytest.raises(Misconfigured, match=r"'toy' is already registered as .*:one; .*:two needs another name"):
        registry.add("toy", two)


def test_the_same_object_may_come_twice_by_string_and_by_decorator(registry: Registry[Any]) -> None:
    registry.add("toy", f"{__name__}:one", extra="toys")
    registry.register("toy")(one)

    assert registry.get("toy") is one


def test_two_lambdas_are_two_objects(registry: Registry[Any]) -> None:
    registry.add("toy", lambda config: config)

    with pytest.raises(Misconfigured):
        registry.add("toy", lambda config: config)


def test_an_unknown_name_is_answered_with_the_known_ones(registry: Registry[Any]) -> None:
    registry.add("b", one)
    registry.add("a", two)

    with pytest.raises(Misconfigured, match=r"There is no toy 'c'; known: a, b\."):
        registry.get("c")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tests.llm.no_such_module:one", "there is no module 'tests.llm.no_such_module'"),
        ("no_such_package.inner:one", "there is no module 'no_such_package'"),
        ("tests.llm.test_registry:three", "has no 'three'"),
    ],
)
def test_a_wrong_path_is_named(registry: Registry[Any], path: str, message: str) -> None:
    registry.add("toy", path)

    with pytest.raises(Misconfigured, match=message):
        registry.get("toy")


@pytest.fixture
def _without_google(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "langchain_google_genai", None)
    monkeypatch.delitem(sys.modules, "llm.providers.google", raising=False)
    monkeypatch.setattr(llm_providers, "_entries", dict(llm_providers._entries))
    llm_providers.remove("google")
    llm_providers.add("google", "llm.providers.google:provider", extra="google")
    yield
    sys.modules.pop("llm.providers.google", None)


@pytest.mark.usefixtures("_without_google")
def test_a_missing_package_is_answered_with_its_extra() -> None:
    with pytest.raises(Misconfigured, match=r'pip install "django-chain\[google\]"'):
        llm_providers.get("google")


def test_providers_named_in_the_setting_are_known(configure: Configure) -> None:
    configure(default={"PROVIDER": "own", "MODEL": "m"}, PROVIDERS={"own": f"{__name__}:one"})

    assert llm_providers.get("own") is one
    llm_providers.remove("own")


@pytest.mark.parametrize("kind", sorted({*providers.__all__} - {"register_redaction"}))  # which takes a pattern
def test_every_decorator_registers(kind: str) -> None:
    register = getattr(providers, kind)
    try:
        assert register("test-only")(one) is one
        assert "test-only" in register.__self__.names()
    finally:
        register.__self__.remove("test-only")


@pytest.mark.parametrize("module", ["django_chain.providers", "llm.events", "llm.aliases", "llm.state", "llm.usage"])
def test_the_public_face_imports_no_ai_library(module: str) -> None:
    shown = "print([m for m in sys.modules if m.startswith(('langchain', 'openai'))])"
    found = f"import django; django.setup(); import sys, {module}; {shown}"

    done = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
