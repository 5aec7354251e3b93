"""The project's own README: the reader has a model class, and a key in the environment."""

from typing import Any

import pytest

from tests.conftest import Person
from tests.docs.setups.providers import CustomLLM, answer_of


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-not-a-key")
    return {"CustomLLM": CustomLLM}


async def check(names: dict[str, Any]) -> None:
    assert await answer_of("custom_provider") == "custom: hello"
