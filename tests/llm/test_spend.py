"""Spend: sums that equal the sum of the rows, over indexed ranges, and nobody else's."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import AsyncClient

from accounts.models import Membership, Role, Workspace
from kernel import database
from kernel.errors import Invalid
from llm import prices, spend
from llm.models import Budget, InteractionLog, Workflow
from tests.conftest import Person

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
PRICE = {"input": "1", "output": "1", "cached_input": "1", "valid_from": BEGIN.isoformat()}


def row(workspace: Workspace, *, at: datetime = BEGIN, **values: Any) -> InteractionLog:
    defaults: dict[str, Any] = {
        "run_id": uuid4(), "status": "ok", "provider": "openai", "model_name": "m", "alias": "default",
        "input_tokens": 10, "output_tokens": 5, "cost": Decimal("0.000000003"), "price": PRICE,
    }  # fmt: skip
    made: InteractionLog = InteractionLog.objects.create(workspace=workspace, **(defaults | values))
    InteractionLog.objects.filter(id=made.id).update(created_at=at)
    return made


@pytest.fixture
def workspace(live_database: None) -> Workspace:
    return Workspace.objects.create(name="spends")


def sums(workspace: Workspace, *by: str, days: int = 31, **more: Any) -> list[dict[str, Any]]:
    rows = InteractionLog.objects.filter(workspace=workspace)
    return spend.spend(rows, since=BEGIN, until=BEGIN + timedelta(days=days), by=by, **more)


def test_the_sum_of_the_groups_is_the_sum_of_the_rows(workspace: Workspace, make: Callable[[], Person]) -> None:
    people = [make().user for _ in range(3)]
    workflow = Workflow.objects.create(workspace=workspace, name="w", workflow_definition=[{"type": "llm"}])
    for number in range(60):
        row(
            workspace,
            at=BEGIN + timedelta(hours=number),
            user=people[number % 3],
            workflow=workflow if number % 2 else None,
            model_name=f"m{number % 4}",
            cost=Decimal(number) / 10**9,
            status="failed" if number % 5 == 0 else "ok",
        )
    [whole] = sums(workspace)
    assert whole["cost"] == Decimal(sum(range(60))) / 10**9
    assert (whole["calls"], whole["failed"], whole["input_tokens"]) == (60, 12, 600)
    for by in (*spend.GROUPS, ("user", "day"), ("workspace", "workflow", "model", "alias", "day", "user")):
        groups = sums(workspace, *([by] if isinstance(by, str) else by))
        for figure in ("calls", "failed", "cached", "input_tokens", "output_tokens", "cost", "unpriced"):
            assert sum(group[figure] for group in groups) == whole[figure], (by, figure)
    assert [group["workflow"] for group in sums(workspace, "workflow")] == ["w", None]


def test_the_range_takes_its_begin_in_and_leaves_its_end_out(workspace: Workspace) -> None:
    tick = timedelta(microseconds=1)
    for at in (BEGIN - tick, BEGIN, BEGIN + timedelta(days=1) - tick, BEGIN + timedelta(days=1)):
        row(workspace, at=at)
    assert sums(workspace, days=1)[0]["calls"] == 2
    assert [str(group["day"]) for group in sums(workspace, "day")] == ["2026-03-01", "2026-03-02"]


def test_only_what_may_have_reached_a_provider_is_a_call(workspace: Workspace) -> None:
    row(workspace)
    row(workspace, status="cached", cost=0, price=None, input_tokens=0, output_tokens=0)
    row(workspace, status="stopped", cost=0, price=None)  # stopped while it was given again
    row(workspace, status="failed", model_name="", cost=None, price=None)  # refused before any call
    row(workspace, status="interrupted", model_name="", cost=None, price=None)  # nobody knows
    row(workspace, status="started", cost=None, price=None)
    row(workspace, cost=None, price=None)
    row(workspace, cost=0)  # a model that is free
    [whole] = sums(workspace)
    assert {name: whole[name] for name in ("calls", "failed", "cached", "unpriced")} == {
        "calls": 4, "failed": 0, "cached": 2, "unpriced": 2,
    }  # fmt: skip


def test_nothing_is_not_known_to_cost_nothing(workspace: Workspace) -> None:
    row(workspace, cost=None, price=None)
    assert sums(workspace)[0]["cost"] is None


def test_pages_of_groups_follow_each_other(workspace: Workspace) -> None:
    for number in range(5):
        row(workspace, at=BEGIN + timedelta(days=number))
    pages = [sums(workspace, "day", limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [group for page in pages for group in page] == sums(workspace, "day")


@pytest.mark.parametrize("days", [0, -1, 93])
def test_a_range_is_bounded(workspace: Workspace, days: int) -> None:
    with pytest.raises(Invalid, match="at most 92 days"):
        sums(workspace, days=days)


def test_an_unknown_group_is_refused_by_name(workspace: Workspace) -> None:
    with pytest.raises(Invalid, match="'colour'; known: workspace"):
        sums(workspace, "colour")


def test_a_sum_reads_the_rows_of_its_time_alone(workspace: Workspace) -> None:
    """On a filled table the planner takes the index of (workspace, time)."""
    other = Workspace.objects.create(name="busy")
    InteractionLog.objects.bulk_create(
        [InteractionLog(workspace=each, run_id=uuid4()) for each in (workspace, other) for _ in range(4000)]
    )
    rows = InteractionLog.objects.filter(workspace=workspace)
    found = rows.filter(created_at__gte=BEGIN, created_at__lt=BEGIN + timedelta(days=31)).order_by()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE llm_interactionlog")
    plan = found.values("user_id").annotate(calls=spend._FIGURES["calls"]).explain()
    assert "Seq Scan" not in plan
    assert "interactionlog_recent" in plan, plan
    assert "created_at >=" in plan.partition("Index Cond")[2].partition("\n")[0], plan
    InteractionLog.objects.filter(workspace__in=[workspace, other]).delete()


# REST ----------------------------------------------------------------------------------------------------------------


class Api:
    """The REST API in this process, as one person."""

    def __init__(self, person: Person) -> None:
        self._headers = {"Authorization": f"Bearer {person.token}"}

    async def __call__(self, method: str, path: str, *, status: int = 200, **more: Any) -> Any:
        client = AsyncClient()
        if "json" in more:
            more = {"data": more["json"], "content_type": "application/json"}
        response = await getattr(client, method.lower())(f"/api/v1{path}", headers=self._headers, **more)
        assert response.status_code == status, response.content
        return response.json() if response.content else None


async def join(person: Person, workspace: Workspace, role: Role) -> Api:
    await database.run(Membership.objects.create, workspace=workspace, user=person.user, role=role)
    return Api(person)


RANGE = "from=2026-03-01T00:00:00Z&to=2026-03-31T00:00:00Z"


async def test_admins_see_all_calls_and_spend_others_their_own(
    workspace: Workspace, make: Callable[[], Person]
) -> None:
    admin, member, viewer, stranger = [await database.run(make) for _ in range(4)]
    apis = [
        await join(admin, workspace, Role.ADMIN),
        await join(member, workspace, Role.MEMBER),
        await join(viewer, workspace, Role.VIEWER),
    ]
    rows = [await database.run(row, workspace, user=person.user) for person in (admin, member, member)]
    seen = [await api("GET", f"/log?workspace={workspace.id}") for api in apis]
    assert [len(page["calls"]) for page in seen] == [3, 2, 0]
    spent = [(await api("GET", f"/spend?workspace={workspace.id}&{RANGE}"))["groups"][0] for api in apis]
    assert [group["calls"] for group in spent] == [3, 2, 0]
    assert [group["cost"] and Decimal(group["cost"]) for group in spent] == [Decimal("9E-9"), Decimal("6E-9"), None]

    admins = rows[0]
    await apis[0]("GET", f"/log/{rows[1].id}")
    await apis[1]("GET", f"/log/{rows[1].id}")
    for api in (apis[1], apis[2], Api(stranger)):
        await api("GET", f"/log/{admins.id}", status=404)
        await api("GET", f"/runs/{admins.run_id}/calls", status=404)
    await Api(stranger)("GET", f"/log?workspace={workspace.id}", status=403)
    await Api(stranger)("GET", f"/spend?workspace={workspace.id}&{RANGE}", status=403)
    everywhere = await apis[0]("GET", f"/spend?everywhere=true&by=workspace&by=user&{RANGE}")
    assert {group["workspace"] for group in everywhere["groups"]} == {str(workspace.id)}
    assert (await apis[1]("GET", f"/spend?everywhere=true&{RANGE}"))["groups"][0]["calls"] == 0


async def test_the_log_is_filtered_and_paged_by_time(workspace: Workspace, make: Callable[[], Person]) -> None:
    person = await database.run(make)
    api = await join(person, workspace, Role.OWNER)
    made = []
    for number in range(5):
        at = BEGIN + timedelta(days=number // 2)  # some at the very same moment
        made.append(await database.run(row, workspace, at=at, user=person.user, model_name=f"m{number % 2}"))
    expected = [str(each.id) for each in sorted(made, key=lambda each: each.id, reverse=True)]
    path, found = f"/log?workspace={workspace.id}&limit=2", []
    following: str | None = ""
    while following is not None:
        page = await api("GET", path + (f"&before={following}" if following else ""))
        found += [call["id"] for call in page["calls"]]
        following = page["next"]
    assert found == expected

    async def count(**query: Any) -> int:
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return len((await api("GET", f"/log?workspace={workspace.id}&{text}"))["calls"])

    assert await count(model="m1") == 2
    assert await count(status="failed") == 0
    assert await count(user=person.user.pk) == 5
    assert await count(user=0) == 0
    assert await count(run=made[0].run_id) == 1
    assert await count(**{"from": "2026-03-02T00:00:00Z", "to": "2026-03-03T00:00:00Z"}) == 2
    assert await count(session=uuid4()) == await count(workflow=uuid4()) == 0
    await api("GET", f"/log?workspace={workspace.id}&status=red", status=422)
    await api("GET", f"/log?workspace={workspace.id}&before={uuid4()}", status=404)
    whole = await api("GET", f"/log/{made[0].id}")
    assert (whole["model"], whole["price"], whole["parameters"]) == ("m0", PRICE, {})
    assert [call["id"] for call in await api("GET", f"/runs/{made[0].run_id}/calls")] == [str(made[0].id)]


async def test_budgets_are_set_by_admins_alone(workspace: Workspace, make: Callable[[], Person]) -> None:
    admin, member, stranger = [await database.run(make) for _ in range(3)]
    api, other = await join(admin, workspace, Role.ADMIN), await join(member, workspace, Role.MEMBER)
    body = {"workspace": str(workspace.id), "kind": "tokens_per_day", "limit": "1000.5"}
    await other("POST", "/budgets", json=body, status=403)
    await Api(stranger)("POST", "/budgets", json=body, status=403)
    await api("POST", "/budgets", json=body | {"limit": 0}, status=422)
    await api("POST", "/budgets", json=body | {"kind": "tea"}, status=422)
    await api("POST", "/budgets", json=body | {"user": stranger.user.pk}, status=422)
    made = await api("POST", "/budgets", json=body, status=201)
    assert made["limit"] == "1000.5"
    personal = await api("POST", "/budgets", json=body | {"user": admin.user.pk, "limit": 5}, status=201)

    listed = (await other("GET", f"/budgets?workspace={workspace.id}"))["budgets"]
    assert [(each["id"], each["limit"]) for each in listed] == [(made["id"], "1000.5")]
    assert len((await api("GET", f"/budgets?workspace={workspace.id}"))["budgets"]) == 2
    [use] = await other("GET", f"/budgets/use?workspace={workspace.id}")
    assert (use["kind"], use["limit"], use["used"]) == ("tokens_per_day", "1000.5", "0")
    assert datetime.fromisoformat(use["until"]) - datetime.fromisoformat(use["since"]) == timedelta(days=1)
    assert len(await api("GET", f"/budgets/use?workspace={workspace.id}")) == 2

    await other("PATCH", f"/budgets/{made['id']}", json={"limit": 7}, status=403)
    await Api(stranger)("PATCH", f"/budgets/{made['id']}", json={"limit": 7}, status=404)
    assert Decimal((await api("PATCH", f"/budgets/{made['id']}", json={"limit": 7}))["limit"]) == 7
    [use] = await other("GET", f"/budgets/use?workspace={workspace.id}")
    assert Decimal(use["limit"]) == 7
    await other("DELETE", f"/budgets/{made['id']}", status=403)
    await api("DELETE", f"/budgets/{made['id']}", status=204)
    await api("DELETE", f"/budgets/{made['id']}", status=404)
    assert await database.run(Budget.objects.filter(workspace=workspace).count) == 1
    assert personal["user"] == admin.user.pk


async def test_prices_are_read_by_whoever_is_signed_in(person: Person) -> None:
    model = f"model-{uuid4().hex[:8]}"
    for day in (1, 2):
        await database.run(
            prices.set_price,
            "openai",
            model,
            input=Decimal("2.5"),
            output=Decimal(day),
            valid_from=BEGIN + timedelta(days=day),
        )
    page = await Api(person)("GET", f"/prices?model={model}&limit=1")
    assert [Decimal(price["output"]) for price in page["prices"]] == [2]
    page = await Api(person)("GET", f"/prices?model={model}&limit=1&before={page['next']}")
    assert [(Decimal(price["input"]), price["cached_input"]) for price in page["prices"]] == [(Decimal("2.5"), None)]
    assert page["next"] is None
    assert (await AsyncClient().get("/api/v1/prices")).status_code == 401
