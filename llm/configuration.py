"""What a workspace has configured, as of one generation: models, prices, budgets, and which prompt versions answer.

`Configuration` is what runs read. It is loaded once for each generation (llm.generation) and process; prompts and
workflows are read by name when they are first asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.utils import timezone

from kernel import database
from kernel.caches import Cache
from kernel.conf import config
from llm import generation as generations
from llm.models import Budget, ModelConfig, ModelPrice, Prompt, PromptSplit, Workflow


@dataclass(frozen=True, kw_only=True)
class PromptVersion:
    """A stored prompt."""

    id: UUID
    name: str
    version: int
    template: dict[str, Any]
    input_variables: list[str]
    optional_variables: list[str]


@dataclass(frozen=True, kw_only=True)
class WorkflowVersion:
    """A stored workflow. `definition` is as it was saved."""

    id: UUID
    name: str
    version: int
    definition: Any


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """An active ModelConfig row. `encrypted_key` is decrypted only where the model is built."""

    id: UUID
    alias: str
    provider: str
    model: str
    options: dict[str, Any]
    base_url: str
    encrypted_key: str
    key_variable: str
    bounds: dict[str, Any]
    route: dict[str, Any] | None
    #: It belongs to one workspace; the others are for all.
    own: bool


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a million tokens cost."""

    provider: str
    model: str
    input: Decimal
    output: Decimal
    cached_input: Decimal
    valid_from: datetime


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A budget that holds in this workspace. `user_id`: only for that person."""

    kind: str
    limit: Decimal
    per: str = "workspace"
    user_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One workspace's configuration. Only the two `async` methods ask the database, once a name."""

    workspace_id: UUID
    generation: int
    #: By alias; the workspace's own rows stand before those for all.
    models: Mapping[str, StoredModel] = field(default_factory=dict)
    #: Those for all, also where the workspace has its own.
    shared_models: Mapping[str, StoredModel] = field(default_factory=dict)
    prices: tuple[Price, ...] = ()
    budgets: tuple[Bound, ...] = ()
    #: Prompt name → version → percent.
    splits: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def price_of(self, provider: str, model: str, *, at: datetime | None = None) -> Price | None:
        """The price in force: the latest that has begun, one for this provider before one for any."""
        at = at or timezone.now()
        valid = [
            price
            for price in self.prices
            if price.model == model and price.provider in ("", provider) and price.valid_from <= at
        ]
        return max(valid, key=lambda price: (price.provider != "", price.valid_from), default=None)

    def split_version(self, name: str, unit: UUID) -> int | None:
        """The version that `unit` (a session, else a run) is given by the split of this name; None without a split.

        The same unit always gets the same one as long as the split stays.
        """
        shares = self.splits.get(name)
        if not shares:
            return None
        place = int.from_bytes(sha256(f"{name}:{unit}".encode()).digest()[:8]) % 100
        for version, share in sorted(shares.items()):
            place -= share
            if place < 0:
                return version
        return max(shares)

    async def prompt(self, name: str, version: int | None = None) -> PromptVersion | None:
        """A prompt's version; None: the active one. None if there is none."""
        key = (self.workspace_id, self.generation, name, version)
        found = _prompts.get(key)
        if found is None:
            found = await database.run(_read_prompt, self.workspace_id, name, version)
            if found is not None:
                _prompts.put(key, found)
        return found

    async def workflow(
        self, name: str = "", version: int | None = None, *, row_id: UUID | None = None
    ) -> WorkflowVersion | None:
        """A workflow's version by name (None: the active one), or the very row `row_id`. None if there is none."""
        key = (self.workspace_id, self.generation, name, version, row_id)
        found = _workflows.get(key)
        if found is None:
            found = await database.run(_read_workflow, self.workspace_id, name, version, row_id)
            if found is not None:
                _workflows.put(key, found)
        return found


_configurations: Cache[UUID, Configuration] = Cache("configuration", 1024)
_prompts: Cache[tuple[UUID, int, str, int | None], PromptVersion] = Cache("prompts", 4096)
_workflows: Cache[tuple[UUID, int, str, int | None, UUID | None], WorkflowVersion] = Cache("workflows", 4096)


def at(workspace_id: UUID, generation: int) -> Configuration:
    """The configuration of that generation, or a later one: from the cache, else four queries (database work)."""
    known = _configurations.get(workspace_id)
    if known is not None and known.generation >= generation:
        return known
    return _configurations.put(workspace_id, load(workspace_id))


async def current(workspace_id: UUID) -> Configuration:
    """The configuration as it is now: one query, and four more if it has changed."""
    return await database.run(lambda: at(workspace_id, generations.of(workspace_id)))


async def known(workspace_id: UUID, generation: int | None) -> Configuration:
    """`at` from async code: no thread hop if it is cached. None: as it is now."""
    cached = _configurations.get(workspace_id) if generation is not None else None
    if cached is not None and generation is not None and cached.generation >= generation:
        return cached
    if generation is None:
        return await current(workspace_id)
    return await database.run(at, workspace_id, generation)


def forget(*, setting: str, **_: object) -> None:
    """The setting's budgets are part of what is cached; in tests it changes."""
    if setting == "DJANGO_CHAIN":
        _configurations.clear()


def load(workspace_id: UUID) -> Configuration:
    """The configuration as this transaction sees it, past the cache (database work: four queries)."""
    # The number first: a change meanwhile leaves us with newer content under an older number, which is loaded again.
    generation = generations.of(workspace_id)
    own: dict[str, StoredModel] = {}
    shared: dict[str, StoredModel] = {}
    rows = ModelConfig.objects.filter(workspace=None, is_active=True)
    for row in rows.union(ModelConfig.objects.filter(workspace_id=workspace_id, is_active=True), all=True):
        (shared if row.workspace_id is None else own)[row.alias] = stored(row)
    return Configuration(
        workspace_id=workspace_id,
        generation=generation,
        models={**shared, **own},
        shared_models=shared,
        prices=tuple(_price(row) for row in ModelPrice.objects.order_by("valid_from")),
        budgets=tuple(_budgets(workspace_id)),
        splits={
            name: {int(version): share for version, share in shares.items()}
            for name, shares in PromptSplit.objects.filter(workspace_id=workspace_id).values_list("name", "shares")
        },
    )


def stored(row: ModelConfig) -> StoredModel:
    """The part of a row that runs use."""
    return StoredModel(
        id=row.id,
        alias=row.alias,
        provider=row.provider,
        model=row.model_name,
        options=row.options,
        base_url=row.base_url,
        encrypted_key=row.encrypted_key,
        key_variable=row.key_variable,
        bounds=row.bounds,
        route=row.route,
        own=row.workspace_id is not None,
    )


def _price(row: ModelPrice) -> Price:
    cached = row.input_price if row.cached_input_price is None else row.cached_input_price
    return Price(
        provider=row.provider,
        model=row.model_name,
        input=row.input_price,
        output=row.output_price,
        cached_input=cached,
        valid_from=row.valid_from,
    )


def _budgets(workspace_id: UUID) -> list[Bound]:
    bounds = [Bound(kind=rule.kind, limit=Decimal(str(rule.limit)), per=rule.per) for rule in config().llm.budgets]
    rows = Budget.objects.filter(workspace_id=workspace_id, is_active=True).order_by("id")
    return bounds + [Bound(kind=row.kind, limit=row.limit, per=row.per, user_id=row.user_id) for row in rows]


def _read_prompt(workspace_id: UUID, name: str, version: int | None) -> PromptVersion | None:
    rows = Prompt.objects.filter(workspace_id=workspace_id, name=name)
    row = (rows.filter(is_active=True) if version is None else rows.filter(version=version)).first()
    if row is None:
        return None
    return PromptVersion(
        id=row.id,
        name=row.name,
        version=row.version,
        template=row.prompt_template,
        input_variables=row.input_variables,
        optional_variables=row.optional_variables,
    )


def _read_workflow(workspace_id: UUID, name: str, version: int | None, row_id: UUID | None) -> WorkflowVersion | None:
    rows = Workflow.objects.filter(workspace_id=workspace_id)
    if row_id is not None:
        row = rows.filter(id=row_id).first()
    else:
        rows = rows.filter(name=name)
        row = (rows.filter(is_active=True) if version is None else rows.filter(version=version)).first()
    if row is None:
        return None
    return WorkflowVersion(id=row.id, name=row.name, version=row.version, definition=row.workflow_definition)
