"""From an alias to models that can be called: built once for what they are made of, kept for this event loop.

What an alias means in a workspace is llm.effective's to say; which of a route's models is asked, llm.router's.
"""

import asyncio
import hashlib
import logging
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec

from kernel.caches import Cache
from kernel.conf import ModelAlias
from kernel.errors import Misconfigured
from llm import effective
from llm.configuration import Configuration
from llm.effective import PUBLIC_OPTIONS, Effective
from llm.providers.base import ChatProvider, ProviderConfig
from llm.registry import llm_providers

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

logger = logging.getLogger(__name__)

#: Models that one event loop keeps; each holds no more than its client's settings, connections are shared.
MAX_BUILT = 512


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model that can be called. Its repr holds no option: among them are keys."""

    alias: str
    bounds: ModelAlias = field(repr=False)
    provider: ChatProvider = field(repr=False)
    chat: "BaseChatModel" = field(repr=False)
    #: A hash of all that it is made of: what one does wrong (a breaker) is no other's fault.
    key: str = field(default="", repr=False)
    #: A hash of alias, provider, address and key: calls of one place share its room, whatever their options.
    place: str = field(default="", repr=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """The options, without secrets, for the interaction log."""
        return public(self.bounds)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What may answer for an alias, in the order in which it is written down; a model alone is a route of one."""

    name: str
    strategy: str
    models: tuple[BuiltModel, ...]
    #: One for each model.
    weights: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Description:
    """An alias as it may be shown to the workspace's people."""

    alias: str
    origin: effective.Origin
    provider: str = ""
    model: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    bounds: dict[str, Any] = field(default_factory=dict)
    #: Only of the workspace's own rows; the operator's addresses are the operator's business.
    base_url: str = ""
    has_key: bool = False
    route: dict[str, Any] | None = None
    #: Why it can't be used, as far as is known without building it.
    fault: str = ""


_built: WeakKeyDictionary[asyncio.AbstractEventLoop, Cache[str, BuiltModel]] = WeakKeyDictionary()


def public(bounds: ModelAlias) -> dict[str, Any]:
    """The options that may be shown."""
    return {name: value for name, value in bounds.options.items() if name in PUBLIC_OPTIONS}


def inspect(name: str, configuration: Configuration) -> Description:
    """`describe`, also of an alias that can't be used: it then has a `fault`."""
    try:
        return describe(name, configuration)
    except Misconfigured as error:
        row = configuration.models.get(name)
        return Description(
            alias=name,
            origin="settings" if row is None else "workspace" if row.own else "global",
            provider="" if row is None else row.provider,
            model="" if row is None else row.model,
            fault=error.message,
        )


def built(name: str, configuration: Configuration) -> list[BuiltModel]:
    """Those models of an alias or route that this event loop has built already."""
    models = _built.get(asyncio.get_running_loop())
    try:
        found = effective.find(name, configuration)
        members = [found] if found.route is None else [_member(found, one, configuration) for one in found.route.models]
        keys = [_hash(member) for member in members]
    except Misconfigured:
        return []
    return [model for key in keys if models is not None and (model := models.get(key)) is not None]


def describe(alias: str = "", configuration: Configuration | None = None) -> Description:
    """An alias (empty: the default one) or a route, built or not. Raises Misconfigured that names the known ones."""
    found = effective.find(alias, configuration)
    if found.bounds is None:
        assert found.route is not None
        route = {"models": found.route.models, "strategy": found.route.strategy, "weights": found.route.weights}
        return Description(alias=found.alias, origin=found.origin, route=route)
    return Description(
        alias=found.alias,
        origin=found.origin,
        provider=found.bounds.provider,
        model=found.bounds.model,
        options=public(found.bounds),
        bounds={encoded: getattr(found.bounds, name) for encoded, name in effective.BOUNDS.items()},
        base_url=found.base_url if found.origin == "workspace" else "",
        has_key=found.has_key,
    )


def candidates(name: str = "", configuration: Configuration | None = None) -> Candidates:
    """The models behind an alias or a route (empty: the default one), built on first use in this event loop.

    A member of a route that can't be built is left out with a warning as long as another one can. Raises Misconfigured.
    """
    found = effective.find(name, configuration)
    if found.route is None:
        return Candidates(found.alias, "fallback", (_model(found),), (1,))
    usable: list[tuple[BuiltModel, int]] = []
    failure: Misconfigured | None = None
    weights = found.route.weights or [1] * len(found.route.models)
    for member, weight in zip(found.route.models, weights, strict=False):
        try:
            usable.append((_model(_member(found, member, configuration)), weight))
        except Misconfigured as error:
            logger.warning("action=model_unusable alias=%s route=%s", member, found.alias)
            failure = failure or error
    if not usable:
        raise failure or Misconfigured(f"The route {found.alias!r} has no model.")
    models, shares = zip(*usable, strict=True)
    return Candidates(found.alias, found.route.strategy, models, shares)


def resolve(alias: str = "", configuration: Configuration | None = None) -> BuiltModel:
    """The model of an alias; of a route its first one. Raises Misconfigured."""
    return candidates(alias, configuration).models[0]


def build(found: Effective) -> BuiltModel:
    """A new one. Raises Misconfigured that says which option, key or package is at fault."""
    assert found.bounds is not None
    factory = llm_providers.get(found.bounds.provider)
    provider = factory if isinstance(factory, ChatProvider) else ChatProvider(factory)
    config = ProviderConfig(found.bounds)
    if found.base_url:
        config[provider.address_option] = found.base_url
    if found.key is not None:
        config[provider.key_option] = found.key.read()
    elif found.keyless and provider.needs_key:
        # Without any the SDK would look for one in the environment, and send the operator's key to the row's address.
        config[provider.key_option] = "none"
    chat = provider.build(config)
    return BuiltModel(found.alias, found.bounds, provider, chat, _hash(found), _place(found))


def warm(alias: str = "") -> None:
    """Import what the alias or route needs and build it once, in any thread, so that the first message need not wait.

    What is built here is thrown away: HTTP connections belong to an event loop, imports and the TLS context do not.
    """
    found = effective.find(alias)
    for member in [found] if found.route is None else [_member(found, name, None) for name in found.route.models]:
        build(member)
    # The hot path itself imports LangChain too.
    from llm import router  # noqa: F401, PLC0415


async def close() -> None:
    """Forget this event loop's models and close their shared connections; for the server's end."""
    _built.pop(asyncio.get_running_loop(), None)
    if "llm.http" in sys.modules:
        # Imported here only if an adapter has done so already: it brings an SDK with it.
        from llm import http  # noqa: PLC0415

        await http.close()


def _member(route: Effective, name: str, configuration: Configuration | None) -> Effective:
    found = effective.find(name, configuration)
    if found.route is not None:
        raise Misconfigured(f"The route {route.alias!r} names {name!r}, which is a route too; name its models.")
    return found


def _model(found: Effective) -> BuiltModel:
    loop = asyncio.get_running_loop()
    if loop not in _built:
        _built[loop] = Cache("models", MAX_BUILT)
    models = _built[loop]
    key = _hash(found)
    return models.get(key) or models.put(key, build(found))


def _hash(found: Effective) -> str:
    """What the model is made of: a changed option builds a new one, and no workspace meets another's key."""
    return _digest(found, found.bounds)


def _place(found: Effective) -> str:
    assert found.bounds is not None
    secrets = {name: value for name, value in found.bounds.options.items() if name not in PUBLIC_OPTIONS}
    return _digest(found, [found.bounds.provider, secrets])


def _digest(found: Effective, parts: object) -> str:
    variable = "" if found.key is None or not found.key.variable else found.key.read()
    encoded = msgspec.json.encode((found.alias, found.base_url, found.key, variable, parts), enc_hook=_raw)
    return hashlib.sha256(encoded).hexdigest()


def _raw(value: Any) -> str:
    """Objects among the options. A SecretStr's repr would be the same for all secrets."""
    reveal = getattr(value, "get_secret_value", None)
    return str(reveal()) if reveal is not None else repr(value)
