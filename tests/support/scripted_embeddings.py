"""Embeddings by OpenAI's protocol: scripts for ScriptedProvider, whose texts hold a marker as messages do.

    with embeddings() as provider:
        gate = Gate()
        provider.script("slow", wait(gate), vectors())
        # … index a text that contains "[[slow]]"

Without a script the same text has the same vector, and texts that share words are near.
"""

import json
from collections.abc import Sequence
from typing import Any

from llm.embeddings.fake import FakeEmbeddings
from tests.support.scripted_provider import Action, OpenAi, Reply, ScriptedProvider

DIMENSION = 32


class OpenAiEmbeddings(OpenAi):
    """The dialect; a request's body has the texts as `input`."""

    def serves(self, path: str) -> bool:
        return path.endswith("/embeddings")

    def asked(self, body: dict[str, Any]) -> str:
        return "\n".join(texts(body))


def texts(body: dict[str, Any]) -> list[str]:
    given = body["input"]
    return [given] if isinstance(given, str) else list(given)


def vectors(*, dimension: int = DIMENSION, missing: int = 0, value: float | None = None) -> Action:
    """The answer: a vector a text, or so many fewer; each number `value`, if one is given."""

    async def act(reply: Reply) -> None:
        wanted = texts(reply.exchange.body)
        found = FakeEmbeddings(dimension).embed_documents(wanted[: len(wanted) - missing])
        if value is not None:
            found = [[value] * dimension for _ in found]
        await _answer(reply, found)

    return act


async def _answer(reply: Reply, found: Sequence[Sequence[float]]) -> None:
    data = [{"object": "embedding", "index": place, "embedding": each} for place, each in enumerate(found)]
    await reply.begin(200, {"Content-Type": "application/json"})
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    await reply.raw(json.dumps({"object": "list", "data": data, "model": "scripted", "usage": usage}).encode())


def embeddings() -> ScriptedProvider:
    return ScriptedProvider(dialect=OpenAiEmbeddings(), otherwise=[vectors()])


def embedded(provider: ScriptedProvider, name: str) -> list[str]:
    """Every text with this marker that an answer was given for, in their order."""
    done = [exchange for exchange in provider.exchanges(name) if exchange.finished.is_set()]
    return [text for exchange in done for text in texts(exchange.body)]
