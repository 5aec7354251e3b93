"""What an alias means in a workspace: its own row over the row for all, over the setting.

A row that names another provider or address than what lies beneath it starts afresh: neither options nor the key come
along, so that no key travels to a place that it wasn't given for. A row at the same place takes everything over and
changes what it names. With a key of its own a workspace takes over the address and the sampling options alone: nothing
that the operator may have put beside them (headers, credentials) is sent together with a tenant's key.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import msgspec

from kernel.conf import ModelAlias, Route, config
from kernel.errors import Invalid, Misconfigured
from llm import base_urls, vault
from llm.configuration import Configuration, StoredModel

#: Options that may be shown and logged, and that rows may set; everything else might be a secret.
PUBLIC_OPTIONS = frozenset({
    "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop", "seed", "presence_penalty",
    "frequency_penalty", "reasoning_effort", "n",
})  # fmt: skip
#: Under which names the options of the setting hold an address.
_ADDRESSES = ("base_url", "endpoint_url", "openai_api_base", "client_options")
BOUNDS = {field.encode_name: field.name for field in msgspec.structs.fields(ModelAlias)}
for _name in ("PROVIDER", "MODEL", "OPTIONS"):
    del BOUNDS[_name]

Origin = Literal["settings", "global", "workspace"]


@dataclass(frozen=True, kw_only=True)
class Key:
    """Where a row's key is; read only when its model is built."""

    encrypted: str = ""
    variable: str = ""
    #: Whose key it is; None: the operator's.
    workspace_id: UUID | None = None

    def read(self) -> str:
        """Raises Misconfigured: unreadable, or the variable isn't allowed or set."""
        if self.encrypted:
            return vault.decrypt(self.encrypted)
        if self.variable not in config().llm.allowed_key_variables:
            raise Misconfigured(
                f"A stored model takes its key from the variable {self.variable!r}, which"
                " DJANGO_CHAIN['LLM']['ALLOWED_KEY_VARIABLES'] does not list."
            )
        if not (key := os.environ.get(self.variable, "")):
            raise Misconfigured(f"A stored model takes its key from the variable {self.variable!r}, which is not set.")
        return key


@dataclass(frozen=True, kw_only=True)
class Effective:
    """An alias as it holds in one workspace: a model (`bounds`) or a route. Its repr holds no option."""

    alias: str
    origin: Origin
    bounds: ModelAlias | None = None
    route: Route | None = None
    #: The row's; "": the options' own, or the provider's default.
    base_url: str = ""
    #: The row's; None: whatever the options or the environment hold.
    key: Key | None = None
    #: Rows that take no key from beneath must not get one from the environment either.
    keyless: bool = False

    def __repr__(self) -> str:
        return f"<{self.origin} {'route' if self.route else 'model'} {self.alias!r}>"

    @property
    def has_key(self) -> bool:
        """Whether a row or the options hold one; a provider may still find one in the environment."""
        options: Mapping[str, Any] = {} if self.bounds is None else self.bounds.options
        secrets = [name for name in options if name not in PUBLIC_OPTIONS and ("key" in name or "token" in name)]
        return self.key is not None or any(options[name] for name in secrets)


def find(name: str = "", configuration: Configuration | None = None) -> Effective:
    """What `name` (empty: the default alias) means. Without a configuration the setting alone is asked.

    Raises Misconfigured that names the known ones, or says what is wrong with the row.
    """
    name = name or config().llm.default_model
    found = _setting(name)
    if configuration is not None:
        shared, top = configuration.shared_models.get(name), configuration.models.get(name)
        for row in (shared, top if top is not shared else None):
            if row is not None:
                found = over(row, found, configuration.workspace_id)
    if found is None:
        raise Misconfigured(f"There is no model {name!r}; known: {', '.join(names(configuration))}.")
    return found


def names(configuration: Configuration | None = None) -> list[str]:
    """Every alias of a model or a route."""
    llm = config().llm
    return sorted({*llm.models, *llm.routes, *(configuration.models if configuration is not None else ())})


def over(row: StoredModel, beneath: Effective | None, workspace_id: UUID) -> Effective:
    """A row over what lies beneath it. Raises Misconfigured."""
    origin: Origin = "workspace" if row.own else "global"
    if row.route is not None:
        return Effective(alias=row.alias, origin=origin, route=parse_route(row.route))
    key = None
    if row.encrypted_key or row.key_variable:
        owner = workspace_id if row.own else None
        key = Key(encrypted=row.encrypted_key, variable=row.key_variable, workspace_id=owner)
    base_url = _allowed(row)
    if beneath is None or beneath.bounds is None or not _same_place(row, base_url, beneath):
        return Effective(
            alias=row.alias,
            origin=origin,
            bounds=_bounds(row, ModelAlias(provider=row.provider, model=row.model), row.options),
            base_url=base_url,
            key=key,
            keyless=key is None,
        )
    options = dict(beneath.bounds.options)
    if key is not None and row.own:
        options = _without_secrets(row, options)
    return Effective(
        alias=row.alias,
        origin=origin,
        bounds=_bounds(row, beneath.bounds, {**options, **row.options}, keeps_concurrency=row.own and key is None),
        base_url=beneath.base_url,
        key=key or beneath.key,
        keyless=beneath.keyless and key is None,
    )


def parse_route(route: Mapping[str, Any]) -> Route:
    """A row's `{"models", "strategy", "weights"}`. Raises Misconfigured."""
    try:
        parsed = msgspec.convert({name.upper(): value for name, value in route.items()}, Route)
    except msgspec.ValidationError as error:
        # The keys of a row are lower case.
        fault = re.sub(r"`[$.A-Z_]+", lambda name: name[0].lower().replace("$.", ""), str(error))
        raise Misconfigured(f"The route is not valid: {fault}.") from error
    if parsed.strategy == "weighted" and len(parsed.weights) != len(parsed.models):
        raise Misconfigured(f"The route is weighted, so weights needs {len(parsed.models)} numbers, one a model.")
    return parsed


def address_of(options: Mapping[str, Any]) -> Any:
    """Where the setting's options point to; None: the provider's default."""
    return next((options[name] for name in _ADDRESSES if options.get(name)), None)


def _setting(name: str) -> Effective | None:
    llm = config().llm
    if name not in llm.models and name not in llm.routes:
        return None
    return Effective(alias=name, origin="settings", bounds=llm.models.get(name), route=llm.routes.get(name))


def _allowed(row: StoredModel) -> str:
    """Asked at each use: the operator may have shortened the list since the row was written."""
    try:
        return base_urls.allowed(row.base_url) if row.base_url else ""
    except Invalid as error:
        raise Misconfigured(f"The stored model {row.alias!r} can't be used. {error.message}") from error


def _same_place(row: StoredModel, base_url: str, beneath: Effective) -> bool:
    assert beneath.bounds is not None
    if row.provider not in ("", beneath.bounds.provider):
        return False
    if not base_url:
        return True
    address = beneath.base_url or address_of(beneath.bounds.options)
    try:
        return isinstance(address, str) and base_urls.canonical(address) == base_url
    except Invalid:
        return False


def _without_secrets(row: StoredModel, options: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: options[name] for name in options if name in PUBLIC_OPTIONS or name in _ADDRESSES}
    address = address_of(kept)
    if address is not None:
        try:
            base_urls.canonical(address if isinstance(address, str) else "")
        except Invalid as error:
            raise Misconfigured(
                f"The model {row.alias!r} of the setting has an address that may hold a secret, so a workspace's own"
                " key can't be used with it; give the row a `base_url` of its own."
            ) from error
    return kept


def _bounds(
    row: StoredModel, beneath: ModelAlias, options: Mapping[str, Any], *, keeps_concurrency: bool = False
) -> ModelAlias:
    bounds = {encoded: getattr(beneath, name) for encoded, name in BOUNDS.items()} | row.bounds
    if keeps_concurrency:
        # It bounds what all workspaces together ask of the operator's key.
        bounds["MAX_CONCURRENT"] = beneath.max_concurrent
    place = {"PROVIDER": row.provider or beneath.provider, "MODEL": row.model or beneath.model, "OPTIONS": {**options}}
    try:
        return msgspec.convert({**bounds, **place}, ModelAlias)
    except msgspec.ValidationError as error:
        raise Misconfigured(f"The stored model {row.alias!r} has a bound that is not valid: {error}.") from error
