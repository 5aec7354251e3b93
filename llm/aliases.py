"""From an alias in the settings to a model that can be called: built once, kept for this event loop."""

import asyncio
import hashlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec

from kernel.conf import ModelAlias, config
from kernel.errors import Misconfigured
from llm.providers.base import ChatProvider, ProviderConfig
from llm.registry import llm_providers

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

#: Options that may be shown and logged; everything else might be a secret.
_PUBLIC_OPTIONS = frozenset({
    "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop", "seed", "presence_penalty",
    "frequency_penalty", "reasoning_effort", "n",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class BuiltModel:
    alias: str
    bounds: ModelAlias
    provider: ChatProvider
    chat: "BaseChatModel"

    @property
    def parameters(self) -> dict[str, Any]:
        """The options, without secrets, for the interaction log."""
        return {name: value for name, value in self.bounds.options.items() if name in _PUBLIC_OPTIONS}


_built: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, BuiltModel]] = WeakKeyDictionary()


def describe(alias: str = "") -> ModelAlias:
    """The settings of an alias (empty: the default one). Raises Misconfigured that names the known ones."""
    models = config().llm.models
    name = alias or config().llm.default_model
    if name not in models:
        raise Misconfigured(
            f"There is no model {name!r} in DJANGO_CHAIN['LLM']['MODELS']; known: {', '.join(sorted(models))}."
        )
    return models[name]


def resolve(alias: str = "") -> BuiltModel:
    """The model of an alias, built on first use in this event loop. Raises Misconfigured."""
    bounds = describe(alias)
    name = alias or config().llm.default_model
    models = _built.setdefault(asyncio.get_running_loop(), {})
    key = _key(name, bounds)
    if key not in models:
        models[key] = _build(name, bounds)
    return models[key]


def warm(alias: str = "") -> None:
    """Import what the alias needs and build it once, in any thread: seconds that the first message need not wait for.

    The model built here is thrown away: HTTP connections belong to an event loop, imports and the TLS context do not.
    """
    _build(alias or config().llm.default_model, describe(alias))
    # The hot path itself imports LangChain too.
    from llm import model_call  # noqa: F401, PLC0415


async def close() -> None:
    """Forget this event loop's models and close their shared connections; for the server's end."""
    _built.pop(asyncio.get_running_loop(), None)
    if "llm.http" in sys.modules:
        # Imported here only if an adapter has done so already: it brings an SDK with it.
        from llm import http  # noqa: PLC0415

        await http.close()


def _build(name: str, bounds: ModelAlias) -> BuiltModel:
    factory = llm_providers.get(bounds.provider)
    provider = factory if isinstance(factory, ChatProvider) else ChatProvider(factory)
    return BuiltModel(name, bounds, provider, provider.build(ProviderConfig(bounds)))


def _key(name: str, bounds: ModelAlias) -> str:
    """A hash of the alias as configured: a changed option builds a new model."""
    encoded = msgspec.json.encode((name, bounds), enc_hook=repr)
    return hashlib.sha256(encoded).hexdigest()
