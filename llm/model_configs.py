"""Changing what aliases mean in the database: the only way in which ModelConfig rows are written.

A row is checked as it will be used: it is laid over what is beneath it (llm.effective) and built once. Keys are
write-only: encrypted before they touch a row, and told to no one again.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from kernel.conf import config
from kernel.errors import Conflict, Invalid, Misconfigured, NotFound
from llm import aliases, base_urls, configuration, effective, generation, signals, vault
from llm.configuration import Configuration
from llm.effective import BOUNDS, PUBLIC_OPTIONS
from llm.models import ModelConfig
from llm.registry import llm_providers

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
#: What an HTTP header can carry; a line break in a key would be a header of its own.
_KEY = re.compile(r"[\x21-\x7e]{1,1000}")
_MOST_ROWS = 200
_LONGEST_SECONDS = 3600.0
_LONGEST_TEXT = 200


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A row as it was asked for."""

    workspace_id: UUID | None
    alias: str
    provider: str
    model: str
    base_url: str
    key: str | None = field(repr=False)
    key_variable: str
    options: Mapping[str, Any]
    bounds: Mapping[str, Any]
    route: Mapping[str, Any] | None


def put(
    workspace_id: UUID | None,
    alias: str,
    *,
    user_id: int | None,
    provider: str = "",
    model: str = "",
    options: Mapping[str, Any] | None = None,
    base_url: str = "",
    key: str | None = None,
    key_variable: str = "",
    bounds: Mapping[str, Any] | None = None,
    route: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """Set an alias of a workspace (None: of all), as a whole: what isn't given is as beneath the row.

    `key` None keeps the row's key as long as provider and address stay; "" drops it. `bounds` has the upper case keys
    of a model alias of the setting, `route` is `{"models", "strategy", "weights"}` and goes with nothing else.
    A unit of work. Raises Invalid that says what to change, or Conflict.
    """
    wanted = _Wanted(
        workspace_id=workspace_id,
        alias=alias,
        provider=provider,
        model=model,
        base_url=base_urls.allowed(base_url) if base_url else "",
        key=key,
        key_variable=key_variable,
        options=options or {},
        bounds=bounds or {},
        route=route,
    )
    _check(wanted)
    with transaction.atomic():
        # First of all, as a lock: two changes of one workspace's aliases are made one after the other.
        generation.bump(workspace_id)
        row = _rows(workspace_id).filter(alias=alias).first()
        if row is None and _rows(workspace_id).count() >= _MOST_ROWS:
            raise Conflict(f"There are {_MOST_ROWS} stored models; delete one first.")
        encrypted = _encrypted_key(wanted, row)
        row = row or ModelConfig(workspace_id=workspace_id, alias=alias)
        row.provider, row.model_name, row.base_url = provider, model, wanted.base_url
        row.options, row.bounds, row.route = dict(wanted.options), dict(wanted.bounds), _route(route)
        row.encrypted_key, row.key_variable = encrypted, key_variable
        row.is_active, row.updated_by_id = True, user_id
        _check_in_place(row)
        row.save()
        _tell(workspace_id, alias, user_id)
    return row


def delete(workspace_id: UUID | None, alias: str, *, user_id: int | None) -> None:
    """Let the alias mean again what is beneath the row. A unit of work. Raises NotFound, Conflict."""
    with transaction.atomic():
        generation.bump(workspace_id)
        row = _rows(workspace_id).filter(alias=alias).first()
        if row is None:
            raise NotFound
        if alias not in effective.names(_without(row)) and (user := _route_with(row)):
            raise Conflict(f"The route {user!r} names this model; change the route first.")
        row.delete()
        _tell(workspace_id, alias, user_id)


def stored(workspace_id: UUID | None) -> list[ModelConfig]:
    """The rows of a workspace (None: those for all), by alias. A unit of work."""
    return list(_rows(workspace_id).order_by("alias"))


def reencrypt() -> int:
    """Write every stored key with the first of the encryption keys; how many there were. A unit of work."""
    with transaction.atomic():
        rows = list(ModelConfig.objects.exclude(encrypted_key="").select_for_update().order_by("id"))
        for row in rows:
            row.encrypted_key = vault.rotate(row.encrypted_key)
            row.save(update_fields=["encrypted_key"])
    return len(rows)


def _rows(workspace_id: UUID | None) -> QuerySet[ModelConfig]:
    mine = Q(workspace=None) if workspace_id is None else Q(workspace_id=workspace_id)
    return ModelConfig.objects.filter(mine)


def _tell(workspace_id: UUID | None, alias: str, user_id: int | None) -> None:
    send = partial(signals.model_changed.send_robust, ModelConfig)
    transaction.on_commit(partial(send, workspace_id=workspace_id, alias=alias, user_id=user_id))


# What can be said of a row without looking at others -----------------------------------------------------------------


def _check(wanted: _Wanted) -> None:
    if not _ALIAS.fullmatch(wanted.alias):
        raise Invalid("An alias is up to 100 letters, digits, dots, - and _, and begins with a letter or a digit.")
    if wanted.route is not None:
        if any((wanted.provider, wanted.model, wanted.base_url, wanted.key, wanted.key_variable)) or (
            wanted.options or wanted.bounds
        ):
            raise Invalid("A route is made of models; it has no provider, model, address, key, options or bounds.")
        return
    if wanted.provider and wanted.provider not in llm_providers.names():
        raise Invalid(f"There is no LLM provider {wanted.provider!r}; known: {', '.join(llm_providers.names())}.")
    if len(wanted.model) > _LONGEST_TEXT or not wanted.model.isprintable():
        raise Invalid(f"A model's name is up to {_LONGEST_TEXT} printable characters.")
    _check_options(wanted.options)
    _check_bounds(wanted.bounds)
    _check_key(wanted)


def _check_options(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in PUBLIC_OPTIONS:
            raise Invalid(f"The option {name!r} can't be stored; those that can: {', '.join(sorted(PUBLIC_OPTIONS))}.")
        values = value if isinstance(value, list) else [value]
        if len(values) > 20 or not all(_plain(one) for one in values):
            raise Invalid(f"The option {name!r} takes a number, a short text, or a list of some.")


def _plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT and value.isprintable()
    return isinstance(value, (int, float)) and math.isfinite(value) and abs(value) < 1e9


def _check_bounds(bounds: Mapping[str, Any]) -> None:
    for name, value in bounds.items():
        if name not in BOUNDS:
            raise Invalid(f"There is no bound {name!r}; known: {', '.join(sorted(BOUNDS))}.")
        if name == "TOKENIZER" and value not in _tokenizers():
            # It may name a file of the server.
            raise Invalid(f"TOKENIZER is one that a model of the setting has: {', '.join(_tokenizers())}.")
        if name.endswith("TIMEOUT") and not (isinstance(value, (int, float)) and 0 < value <= _LONGEST_SECONDS):
            raise Invalid(f"{name} is a number of seconds up to {_LONGEST_SECONDS:g}.")


def _tokenizers() -> list[str]:
    return sorted({"estimate", *(alias.tokenizer for alias in config().llm.models.values())})


def _check_key(wanted: _Wanted) -> None:
    if wanted.key and not _KEY.fullmatch(wanted.key):
        raise Invalid("A key is up to 1000 printable ASCII characters without spaces.")
    if not wanted.key_variable:
        return
    if wanted.key:
        raise Invalid("Give either `key` or `key_variable`.")
    if wanted.workspace_id is not None:
        # It would be the operator's secret, under an address or a model of the tenant's choice.
        raise Invalid("Only a model for all workspaces takes its key from the environment; give `key`.")
    if wanted.key_variable not in config().llm.allowed_key_variables:
        raise Invalid("That variable is not one that the server's operator allows (LLM['ALLOWED_KEY_VARIABLES']).")
    if not os.environ.get(wanted.key_variable):
        raise Invalid("That variable is not set in the server's environment.")


# What can be said of it among the others -----------------------------------------------------------------------------


def _route(route: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if route is None:
        return None
    try:
        parsed = effective.parse_route(route)
    except Misconfigured as error:
        raise Invalid(error.message) from error
    return {"models": parsed.models, "strategy": parsed.strategy, "weights": parsed.weights}


def _encrypted_key(wanted: _Wanted, row: ModelConfig | None) -> str:
    if wanted.key:
        return vault.encrypt(wanted.key)
    if wanted.key is not None or wanted.key_variable or row is None or not row.encrypted_key:
        return ""
    if (row.provider, row.base_url) != (wanted.provider, wanted.base_url) or wanted.route is not None:
        # Who may write the key may not read it; sending it to another address would be reading it.
        raise Invalid("Provider or address change, so the stored key can't stay: give the `key` anew, or an empty one.")
    return row.encrypted_key


def _check_in_place(row: ModelConfig) -> None:
    """Use it once, as a run would. Raises Invalid."""
    try:
        if row.route is not None:
            _check_members(row)
        else:
            _check_model(row)
    except Misconfigured as error:
        raise Invalid(error.message) from error


def _check_members(row: ModelConfig) -> None:
    assert row.route is not None
    if row.alias in row.route["models"]:
        raise Invalid("A route can't name itself.")
    if user := _route_with(row):
        raise Invalid(f"The route {user!r} names this alias, and a route's members are models, not routes.")
    around = _around(row.workspace_id)
    for member in row.route["models"]:
        if effective.find(member, around).route is not None:
            raise Invalid(f"{member!r} is a route; a route's members are models.")


def _check_model(row: ModelConfig) -> None:
    rest = _without(row)
    beneath = effective.find(row.alias, rest) if row.alias in effective.names(rest) else None
    laid = effective.over(configuration.stored(row), beneath, rest.workspace_id)
    assert laid.bounds is not None
    if not laid.bounds.provider or not laid.bounds.model:
        raise Invalid("Nothing is beneath this alias that it could take over: give `provider` and `model`.")
    if row.workspace_id is not None and laid.key is None and not laid.keyless and "MAX_CONCURRENT" in row.bounds:
        raise Invalid("MAX_CONCURRENT bounds the use of the operator's key; it goes with a key of your own.")
    built = aliases.build(laid)
    if built.provider.needs_key and laid.keyless and not laid.base_url:
        raise Invalid("The operator's key does not go to another provider: give a `key`.")


def _without(row: ModelConfig) -> Configuration:
    """What would hold without the row."""
    if row.workspace_id is None:
        return Configuration(workspace_id=_NOBODY, generation=0)
    shared = _around(row.workspace_id).shared_models
    return Configuration(workspace_id=row.workspace_id, generation=0, models=shared, shared_models=shared)


def _route_with(row: ModelConfig) -> str:
    """A route that names this alias, in the row's workspace or, of a row for all, in any."""
    for name, route in config().llm.routes.items():
        if row.alias in route.models:
            return name
    rows = ModelConfig.objects.filter(route__models__contains=[row.alias], is_active=True).exclude(id=row.id)
    if row.workspace_id is not None:
        rows = rows.filter(Q(workspace_id=row.workspace_id) | Q(workspace=None))
    return str(rows.values_list("alias", flat=True).first() or "")


def _around(workspace_id: UUID | None) -> Configuration:
    """All rows as they are in this transaction; past the cache, which other threads share."""
    return configuration.load(workspace_id or _NOBODY)


#: The id of no workspace: what is for all is checked as it would hold in one without rows of its own.
_NOBODY = UUID(int=0)
