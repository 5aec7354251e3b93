"""The rows of the interaction log. Sync: each function is part of a transaction of the run that it tells about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from django.db import transaction
from django.db.models import Max
from django.db.models.functions import Now

from kernel.conf import config
from kernel.errors import Conflict
from kernel.redaction import redact_data
from llm import budgets, counters, signals
from llm.configuration import Price
from llm.counters import Spent
from llm.errors import (
    ProviderContextExceeded,
    ProviderMisconfigured,
    ProviderRateLimited,
    ProviderRefused,
    ProviderUnavailable,
)
from llm.models import CallStatus, InteractionLog
from llm.usage import NO_USAGE, Usage

if TYPE_CHECKING:
    from llm.configuration import Configuration
    from llm.journal import Call, Closed, Ending, RunRef

#: Seconds beyond a run's longest time after which its open rows are of a dead process.
_GRACE = 60
_MILLION = Decimal(1_000_000)
_BILLIONTH = Decimal("0.000000001")
#: Failures that came in the place of an answer: no provider counts anything for them. The log's tokens are an estimate
#: of what was sent, their cost is 0.
UNBILLED = frozenset({
    ProviderContextExceeded.code, ProviderMisconfigured.code, ProviderRateLimited.code, ProviderRefused.code,
    ProviderUnavailable.code,
})  # fmt: skip
#: What the columns hold.
_MOST = Decimal("999999999.999999999")
_MOST_TOKENS = 2**31 - 1


def open_run(run: RunRef, *, in_chat: bool) -> None:
    """The first row of a run. A chat's run has a lease; any other must end by a time that is written down."""
    _open(run, in_chat=in_chat)
    signals.run_opened(run)


def must_write(run: RunRef, call: Call, configuration: Configuration) -> bool:
    """Whether opening this call needs the database: the first one has its row already."""
    return call.number != run.first_call or (not call.cached and budgets.holds_calls(configuration, run.user_id))


def open_call(run: RunRef, call: Call, closed: Sequence[Closed], configuration: Configuration) -> None:
    """Write the row of a call, hold back what it may use, and write the ends of those before it.

    Raises BudgetExceeded, PriceMissing, and Conflict when another process has ended or taken over this attempt.
    """
    with budgets.refusals_told(), transaction.atomic():
        _check_ours(run)
        _write_closed(run, closed, status=CallStatus.INTERRUPTED)
        if closed and budgets.holds_calls(configuration, run.user_id):
            counters.settle(run.workspace_id, run.run_id, [_spent(one) for one in closed], rest="keep")
        budgets.begin_call(configuration, run, call)
        values = _of_call(call, run) | {"price": _price_as_json(call.price)}
        if call.number == run.first_call:
            # If this process dies, the row says at least who was asked.
            InteractionLog.objects.filter(run_id=run.run_id, call=call.number).update(**values)
        else:
            _row(run, call.number, closes_by=_latest_end(), **values).save(force_insert=True)


@transaction.atomic(savepoint=False)
def close_run(ending: Ending) -> None:
    """Write what a run's end says of its calls; part of the transaction that ends the run."""
    run = ending.run
    signals.run_closed(ending)
    if ending.leftovers:
        _lock(run)  # an opening may be under way: it comes before this, or finds the run ended
    _write_closed(run, ending.calls, status=ending.status, category=ending.error_category, steps=ending.steps)
    if ending.leftovers:
        _close_leftovers(
            run,
            ending.status,
            ending.leftover_usage,
            error_category=ending.error_category,
            # What its workflow lets us keep nobody knows either.
            text="" if ending.unknown else ending.text,
            attempt=run.attempt,
            workflow_id=run.workflow_id,
        )
    if run.holds:
        rest: Literal["count", "free"] = "count" if ending.unknown else "free"
        counters.settle(run.workspace_id, run.run_id, [_spent(one) for one in ending.calls], rest=rest)


@transaction.atomic(savepoint=False)
def reopen_run(run: RunRef, *, asked: Usage = NO_USAGE) -> RunRef:
    """Another attempt: what the dead process left open is interrupted, and the attempt gets a first row of its own.

    `asked` is what that process's call took at least, as far as anybody can tell.
    """
    _lock(run)
    _close_leftovers(run, CallStatus.INTERRUPTED, asked)
    counters.settle(run.workspace_id, run.run_id, (), rest="count_calls")
    last: int | None = InteractionLog.objects.filter(run_id=run.run_id).aggregate(last=Max("call"))["last"]
    again = replace(run, first_call=0 if last is None else last + 1)
    _open(again, in_chat=True)
    return again


def with_workflow(run: RunRef, workflow_id: UUID | None) -> RunRef:
    return replace(run, workflow_id=workflow_id)


def cost_of(usage: Usage, cached_input_tokens: int, price: Price | None) -> Decimal | None:
    """What these tokens cost, to a billionth; None without a price."""
    if price is None:
        return None
    asked, said = _count(usage.input_tokens), _count(usage.output_tokens)
    cached = min(_count(cached_input_tokens), asked)
    spent = (asked - cached) * price.input + cached * price.cached_input + said * price.output
    return min((spent / _MILLION).quantize(_BILLIONTH, rounding=ROUND_HALF_UP), _MOST)


def _row(run: RunRef, number: int, **more: Any) -> InteractionLog:
    return InteractionLog(
        workspace_id=run.workspace_id,
        user_id=run.user_id,
        session_id=run.session_id,
        workflow_id=run.workflow_id,
        run_id=run.run_id,
        call=number,
        attempt=run.attempt,
        **more,
    )


def _open(run: RunRef, *, in_chat: bool) -> None:
    _row(run, run.first_call, closes_by=None if in_chat else _latest_end()).save(force_insert=True)


def _latest_end() -> Any:
    return Now() + timedelta(seconds=config().llm.workflow_timeout + _GRACE)


def _lock(run: RunRef) -> None:
    """Of all who write to a run's log, one at a time: its very first row is the lock."""
    list(InteractionLog.objects.filter(run_id=run.run_id, call=0).select_for_update(of=("self",)).values_list("id"))


def _check_ours(run: RunRef) -> None:
    """Raise Conflict if this attempt was ended or taken over: a living one always has an open row."""
    _lock(run)
    mine = InteractionLog.objects.filter(run_id=run.run_id, attempt=run.attempt, status=CallStatus.STARTED)
    if not mine.exists():
        raise Conflict("This run was ended or taken over by another process.")


def _close_leftovers(run: RunRef, status: CallStatus, usage: Usage, *, text: str = "", **more: Any) -> None:
    """End the rows that are still open. What is known of them belongs to the last one: that call was under way."""
    rows = InteractionLog.objects.filter(run_id=run.run_id, status=CallStatus.STARTED)
    common = more | {"status": status, "usage_estimated": True, "finished_at": Now(), "updated_at": Now()}
    last = rows.order_by("-call").only("call", "price").first()
    if last is None:
        return
    price = _price_of_json(last.price)
    rows.filter(call=last.call).update(
        **common,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost=cost_of(usage, 0, price),
        response_text=_content(text, run) or "",
    )
    if last.call:
        rows.update(**common)


def _spent(closed: Closed) -> Spent:
    tokens = _billed(closed)
    return Spent(
        call=closed.call.number,
        tokens=_count(tokens.input_tokens) + _count(tokens.output_tokens),
        cost=_cost(closed),
    )


def _cost(closed: Closed) -> Decimal | None:
    if closed.call.cached:
        return Decimal(0)
    return cost_of(_billed(closed), closed.cached_input_tokens, closed.call.price)


def _billed(closed: Closed) -> Usage:
    return NO_USAGE if closed.first_token_ms is None and closed.error_category in UNBILLED else closed.usage


def _count(tokens: int) -> int:
    """A provider's count as it can be stored, whatever it says."""
    return min(max(tokens, 0), _MOST_TOKENS)


def _of_call(call: Call, run: RunRef) -> dict[str, Any]:
    return {
        "alias": call.alias,
        "provider": call.provider,
        "model_name": call.model,
        "model_parameters": redact_data(call.parameters),
        "prompt_text": _content(call.messages, run),
        "prompt_id": call.prompt_id,
    }


def _write_closed(
    run: RunRef,
    closed: Sequence[Closed],
    *,
    status: CallStatus,
    category: str = "",
    steps: Sequence[dict[str, Any]] = (),
) -> None:
    """`status` and `category` are the run's: those of a call that was cut short with it."""
    for one in closed:
        values = _of_closed(one, status, run)
        if one.status is None:
            values["error_category"] = category
        if steps and one.call.number == run.first_call:
            values["steps"] = redact_data(steps)
        # An open row: an end is written once. Another attempt's can't be meant, its numbers are others (reopen_run).
        InteractionLog.objects.filter(run_id=run.run_id, call=one.call.number, status=CallStatus.STARTED).update(
            **values, workflow_id=run.workflow_id, finished_at=Now(), updated_at=Now()
        )
    if steps and all(one.call.number != run.first_call for one in closed):
        InteractionLog.objects.filter(run_id=run.run_id, call=run.first_call).update(steps=redact_data(steps))


def _of_closed(closed: Closed, status: CallStatus, run: RunRef) -> dict[str, Any]:
    price, usage = closed.call.price, closed.usage
    spoken = (closed.latency_ms or 0) - (closed.first_token_ms or 0)
    return _of_call(closed.call, run) | {
        "status": closed.status or status,
        "error_category": closed.error_category,
        "response_text": _content(closed.text, run) or "",
        "input_tokens": _count(usage.input_tokens),
        "output_tokens": _count(usage.output_tokens),
        "cached_input_tokens": min(_count(closed.cached_input_tokens), _count(usage.input_tokens)),
        "usage_estimated": usage.estimated,
        "cost": _cost(closed),
        "price": _price_as_json(price),
        "first_token_ms": closed.first_token_ms,
        "latency_ms": closed.latency_ms,
        "tokens_per_second": round(usage.output_tokens * 1000 / spoken, 2) if spoken > 0 else None,
        "metadata": redact_data(closed.metadata),
    }


def _price_as_json(price: Price | None) -> dict[str, str] | None:
    if price is None:
        return None
    return {
        "input": str(price.input),
        "output": str(price.output),
        "cached_input": str(price.cached_input),
        "valid_from": price.valid_from.isoformat(),
    }


def _price_of_json(price: dict[str, str] | None) -> Price | None:
    if price is None:
        return None
    return Price(
        provider="",
        model="",
        input=Decimal(price["input"]),
        output=Decimal(price["output"]),
        cached_input=Decimal(price["cached_input"]),
        valid_from=datetime.fromisoformat(price["valid_from"]),
    )


#: Each stricter than the one before.
_POLICIES = ("full", "redacted", "none")


def stricter(one: str, other: str) -> str:
    """Of two policies for texts the one that keeps less: a workflow may be stricter than the setting, never laxer."""
    return max(one, other, key=_POLICIES.index)


def _content(content: Any, run: RunRef) -> Any:
    """What the policy lets the log keep."""
    policy = stricter(config().llm.log_content, run.log_content)
    if policy == "none":
        return None
    return redact_data(content) if policy == "redacted" else content
