"""What the page registers is there, works, and is forgotten again."""

from typing import Any

import pytest

from kernel.redaction import forget_redaction, redact
from llm import registry, validators
from tests.conftest import Person


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {}


async def check(names: dict[str, Any]) -> None:
    try:
        assert redact("EMP-123456") == "[redacted:employee]"
        verdict = await validators.build({"validator": "polite", "word": "darn"})("Darn it", None)
        assert verdict == validators.refuse("Please ask politely.")
        assert "marked" in registry.middleware.names()
    finally:
        forget_redaction("employee")
        registry.validators.remove("polite")
        registry.middleware.remove("marked")
