"""REST for budgets, what of them is used, what was spent, and prices."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from django.http import HttpRequest
from django.utils import timezone
from ninja import Field as Aliased
from ninja import Query, Router, Schema, Status
from pydantic import AwareDatetime, BaseModel, Field, PlainSerializer

from accounts.access import Caller
from accounts.rest import caller_of, newest_first
from kernel import database
from llm import budget_rows, interactions, spend
from llm.models import Budget, BudgetKind, ModelPrice

router = Router(tags=["money"])
Limit = Annotated[int, Query(ge=1, le=100)]
Amount = Annotated[Decimal, Field(gt=0, max_digits=20, decimal_places=6)]
#: As it was set, without the zeros that its column adds.
Plain = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount.normalize():f}", return_type=str)]


class BudgetIn(BaseModel, extra="forbid"):
    """A bound; without `workspace` of the caller's own. With `user` it holds for that member alone."""

    workspace: UUID | None = None
    kind: BudgetKind
    limit: Amount
    per: Budget.Per = Budget.Per.WORKSPACE
    user: int | None = None
    is_active: bool = True


class BudgetChange(BaseModel, extra="forbid"):
    """What is to change."""

    limit: Amount | None = None
    is_active: bool | None = None


class BudgetOut(Schema):
    id: UUID
    workspace: UUID = Aliased(alias="workspace_id")
    kind: BudgetKind
    limit: Plain
    per: Budget.Per
    user: int | None = Aliased(alias="user_id")
    is_active: bool
    created_at: AwareDatetime
    updated_at: AwareDatetime


class BudgetPage(Schema):
    """Newest first. `next` goes into `before` for the following page; null on the last one."""

    budgets: list[BudgetOut]
    next: UUID | None


class UseOut(Schema):
    """A bound that holds for the caller now. `reserved` is held back by what is under way; `until`: null while it
    lasts."""

    kind: BudgetKind
    per: Budget.Per
    limit: Plain
    used: Plain
    reserved: Plain
    since: AwareDatetime | None
    until: AwareDatetime | None


class PriceOut(Schema):
    """For a million tokens. `cached_input` null: as `input`."""

    id: UUID
    provider: str
    model: str = Aliased(alias="model_name")
    input: Decimal = Aliased(alias="input_price")
    output: Decimal = Aliased(alias="output_price")
    cached_input: Decimal | None = Aliased(alias="cached_input_price")
    valid_from: AwareDatetime


class PricePage(Schema):
    """Newest first, with those that are over or have not begun."""

    prices: list[PriceOut]
    next: UUID | None


class SpendQuery(BaseModel):
    """`by` may be repeated. Without `workspace`: of the caller's own; `everywhere`: of all that they administer.

    Without `from` the 30 days before `to`; without `to` until now.
    """

    workspace: UUID | None = None
    everywhere: bool = False
    by: list[Literal["workspace", "user", "workflow", "model", "alias", "day"]] = Field([], max_length=6)
    since: AwareDatetime | None = Field(None, alias="from")
    until: AwareDatetime | None = Field(None, alias="to")
    limit: int = Field(100, ge=1, le=100)
    offset: int = Field(0, ge=0, le=10_000)


class Group(BaseModel):
    """Sums of one group, with the names that it was grouped by. `cost` leaves the `unpriced` calls out."""

    workspace: UUID | None = None
    user: int | None = None
    workflow: str | None = None
    provider: str | None = None
    model: str | None = None
    alias: str | None = None
    day: date | None = None
    calls: int
    failed: int
    cached: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost: Decimal | None
    unpriced: int


class SpendPage(Schema):
    """`next` goes into `offset` for the following page; null on the last one."""

    groups: list[Group]
    next: int | None


@router.get("/budgets", response=BudgetPage, summary="Budgets of a workspace that stand in the database")
async def list_budgets(
    request: HttpRequest, workspace: UUID | None = None, before: UUID | None = None, limit: Limit = 50
) -> dict[str, Any]:
    rows, following = await database.run(budget_rows.page, caller_of(request), workspace, limit=limit, before=before)
    return {"budgets": rows, "next": following}


@router.post("/budgets", response={201: BudgetOut}, summary="Set a budget (admins)")
async def create_budget(request: HttpRequest, body: BudgetIn) -> Status[Budget]:
    values = body.model_dump(exclude={"workspace", "user"})
    made = await database.run(budget_rows.create, caller_of(request), body.workspace, user_id=body.user, **values)
    return Status(201, made)


@router.get("/budgets/use", response=list[UseOut], summary="What is used of the budgets that hold for the caller")
async def current_use(request: HttpRequest, workspace: UUID | None = None) -> list[budget_rows.Use]:
    return await database.run(budget_rows.use, caller_of(request), workspace)


@router.patch("/budgets/{uuid:budget_id}", response=BudgetOut, summary="Change a budget (admins)")
async def change_budget(request: HttpRequest, budget_id: UUID, body: BudgetChange) -> Budget:
    changes = body.model_dump(exclude_none=True)
    return await database.run(budget_rows.change, caller_of(request), budget_id, **changes)


@router.delete("/budgets/{uuid:budget_id}", response={204: None}, summary="Remove a budget (admins)")
async def remove_budget(request: HttpRequest, budget_id: UUID) -> Status[None]:
    await database.run(budget_rows.remove, caller_of(request), budget_id)
    return Status(204, None)


@router.get("/prices", response=PricePage, summary="What models cost")
async def list_prices(
    request: HttpRequest,
    model: Annotated[str | None, Query(max_length=200)] = None,
    before: UUID | None = None,
    limit: Limit = 50,
) -> dict[str, Any]:
    rows = ModelPrice.objects.all() if model is None else ModelPrice.objects.filter(model_name=model)
    page, following = await database.run(newest_first, rows, limit=limit, before=before)
    return {"prices": page, "next": following}


@router.get(
    "/spend", response=SpendPage, summary="Sums of the log: of a workspace for its admins, else the caller's own"
)
async def get_spend(request: HttpRequest, query: Query[SpendQuery]) -> dict[str, Any]:
    groups = await database.run(_spend, caller_of(request), query)
    following = query.offset + query.limit if len(groups) > query.limit else None
    return {"groups": groups[: query.limit], "next": following}


def _spend(caller: Caller, query: SpendQuery) -> list[dict[str, Any]]:
    rows: Any = (
        interactions.rows_everywhere(caller) if query.everywhere else interactions.rows_for(caller, query.workspace)
    )
    until = query.until or timezone.now()
    since = query.since or until - timedelta(days=30)
    return spend.spend(rows, since=since, until=until, by=query.by, limit=query.limit + 1, offset=query.offset)
