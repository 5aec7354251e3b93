"""The reader has a model class, an embeddings class, and a package `house` with a factory."""

import sys
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from django.test import override_settings
from langchain_core.messages import HumanMessage

from llm import registry
from llm.events import Text
from llm.providers.fake import FakeChatModel
from llm.router import stream_route
from llm.state import RunContext
from tests.conftest import Person


class CustomLLM(FakeChatModel):
    text: str | None = "custom: hello"


class LengthEmbeddings:
    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def embed_query(self, text: str) -> list[float]:
        return [float(len(text))] * self.dimension

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    house, models = ModuleType("house"), ModuleType("house.models")
    models.create = lambda config: CustomLLM(**config)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "house", house)
    monkeypatch.setitem(sys.modules, "house.models", models)
    return {"CustomLLM": CustomLLM, "LengthEmbeddings": LengthEmbeddings}


async def check(names: dict[str, Any]) -> None:
    assert await answer_of("custom_provider") == "custom: hello"
    assert registry.embedding_providers.get("lengths")({"dimension": 2}).embed_query("four") == [4.0, 4.0]


async def answer_of(provider: str) -> str:
    chain = {"LLM": {"MODELS": {"default": {"PROVIDER": provider, "MODEL": "m", "OPTIONS": {"temperature": 0}}}}}
    with override_settings(DJANGO_CHAIN=chain):
        asked = stream_route("", [HumanMessage("hello")], run=RunContext.unlogged(uuid4()))
        events = [event async for event in asked]
    return "".join(event.text for event in events if isinstance(event, Text))
