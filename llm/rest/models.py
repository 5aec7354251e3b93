"""REST for models: what each alias means in a workspace, its own rows over them, and trying one out.

Every member reads; owners and admins write and try. No answer holds a key, nor the address of a model that is not the
workspace's own. Rules live in llm.model_configs.
"""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Path, Router, Schema, Status
from pydantic import BaseModel, Field, SecretStr

from accounts.access import workspace_for
from accounts.models import ADMINS, READERS
from accounts.rest import caller_of
from kernel import database
from kernel.conf import config
from kernel.errors import NotFound
from llm import aliases, configuration, effective, generation, health, model_configs
from llm.configuration import Configuration

router = Router(tags=["models"])
Alias = Annotated[str, Path(max_length=100)]
Options = Annotated[dict[str, Any], Field(max_length=20)]


class RouteIn(BaseModel, extra="forbid"):
    """`strategy`: fallback, round_robin, weighted (with `weights`, one a model) or least_busy."""

    models: Annotated[list[str], Field(min_length=1, max_length=20)]
    strategy: str = "fallback"
    weights: Annotated[list[int], Field(max_length=20)] = []


class ModelIn(BaseModel, extra="forbid"):
    """The whole row; what is left out is as beneath it. `key` is write-only: null keeps it, "" drops it."""

    provider: str = Field("", max_length=100)
    model: str = Field("", max_length=200)
    options: Options = {}
    base_url: str = Field("", max_length=500)
    key: SecretStr | None = Field(None, max_length=1000)
    #: As a model alias of the setting names them: `{"TOTAL_TIMEOUT": 60}`.
    bounds: Options = {}
    route: RouteIn | None = None


class HealthOut(Schema):
    """What the server process that answers has seen: closed (well), open (left alone), half_open (being tried)."""

    provider: str
    model: str
    state: str
    opens_in: float
    last_error: str


class ModelOut(Schema):
    """What an alias means. `origin`: settings, global (a row of the operator's) or workspace (a row of its own)."""

    alias: str
    origin: str
    is_default: bool
    provider: str
    model: str
    options: dict[str, Any]
    bounds: dict[str, Any]
    base_url: str
    has_key: bool
    route: dict[str, Any] | None
    #: Why it can't be used; empty if it can, as far as is known.
    fault: str
    health: list[HealthOut]


class ModelList(Schema):
    models: list[ModelOut]


class TrialOut(Schema):
    """`code` and `message` say what failed. Times are milliseconds."""

    ok: bool
    code: str
    message: str
    provider: str
    model: str
    answer: str
    first_token_ms: int | None
    latency_ms: int | None
    input_tokens: int
    output_tokens: int


@router.get("/models", response=ModelList, summary="Every alias and route, as it holds in the workspace")
async def list_models(request: HttpRequest, workspace: UUID | None = None) -> dict[str, Any]:
    def read() -> Configuration:
        place = workspace_for(caller_of(request), workspace, roles=READERS)
        return configuration.at(place.pk, generation.of(place.pk))

    holding = await database.run(read)
    return {"models": [_out(name, holding) for name in effective.names(holding)]}


@router.put("/models/{alias}", response=ModelOut, summary="Set what an alias means in the workspace")
async def put_model(request: HttpRequest, alias: Alias, body: ModelIn, workspace: UUID | None = None) -> dict[str, Any]:
    def write() -> Configuration:
        caller = caller_of(request)
        place = workspace_for(caller, workspace, roles=ADMINS)
        asked = body.model_dump(exclude={"key"})
        key = None if body.key is None else body.key.get_secret_value()
        model_configs.put(place.pk, alias, user_id=caller.user_id, key=key, **asked)
        return configuration.load(place.pk)

    return _out(alias, await database.run(write))


@router.delete("/models/{alias}", response={204: None}, summary="Let the alias mean again what the operator set")
async def delete_model(request: HttpRequest, alias: Alias, workspace: UUID | None = None) -> Status[None]:
    def write() -> None:
        caller = caller_of(request)
        place = workspace_for(caller, workspace, roles=ADMINS)
        model_configs.delete(place.pk, alias, user_id=caller.user_id)

    await database.run(write)
    return Status(204, None)


@router.post("/models/{alias}/test", response=TrialOut, summary="One tiny call: a run of the workspace like any other")
async def try_model(request: HttpRequest, alias: Alias, workspace: UUID | None = None) -> dict[str, Any]:
    def read() -> Configuration:
        place = workspace_for(caller_of(request), workspace, roles=ADMINS)
        return configuration.at(place.pk, generation.of(place.pk))

    holding = await database.run(read)
    if alias not in effective.names(holding):
        raise NotFound
    # It brings LangChain with it, which start-up must not.
    from llm import trials  # noqa: PLC0415

    return asdict(await trials.try_out(alias, holding, user_id=caller_of(request).user_id))


def _out(name: str, holding: Configuration) -> dict[str, Any]:
    seen = health.figures(aliases.built(name, holding))
    default = name == config().llm.default_model
    return {**asdict(aliases.inspect(name, holding)), "is_default": default, "health": seen}
