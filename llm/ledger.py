"""The rows of the interaction log. Sync: each function is part of a transaction of the run that it tells about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import transaction
from django.db.models import Max
from django.db.models.functions import Now

from kernel.conf import config
from llm.models import CallStatus, InteractionLog
from llm.usage import Usage

if TYPE_CHECKING:
    from llm.configuration import Configuration, Price
    from llm.journal import Call, Closed, Ending, RunRef

#: Seconds beyond a run's longest time after which its open rows are of a dead process.
_GRACE = 60
_MILLION = Decimal(1_000_000)


def open_run(run: RunRef, *, in_chat: bool) -> None:
    """The first row of a run. A chat's run has a lease; any other must end by a time that is written down."""
    _row(run, run.first_call, closes_by=None if in_chat else _latest_end()).save(force_insert=True)


def must_write(run: RunRef, call: Call, configuration: Configuration) -> bool:
    """Whether opening this call needs the database: the first one has its row already."""
    return call.number != run.first_call


def open_call(run: RunRef, call: Call, closed: Sequence[Closed], configuration: Configuration) -> None:
    """Write the row of a further call, and the ends of those before it."""
    with transaction.atomic():
        _write_closed(run, closed, status=CallStatus.INTERRUPTED)
        if call.number != run.first_call:
            row = _row(run, call.number, closes_by=_latest_end())
            for name, value in _of_call(call).items():
                setattr(row, name, value)
            row.save(force_insert=True)


def close_run(ending: Ending) -> None:
    """Write what a run's end says of its calls; part of the transaction that ends the run."""
    run = ending.run
    _write_closed(run, ending.calls, status=ending.status, steps=ending.steps)
    if ending.leftovers:
        InteractionLog.objects.filter(run_id=run.run_id, status=CallStatus.STARTED).update(
            status=ending.status,
            error_category=ending.error_category,
            input_tokens=ending.leftover_usage.input_tokens,
            output_tokens=ending.leftover_usage.output_tokens,
            usage_estimated=True,
            response_text=_content(ending.text) or "",
            attempt=run.attempt,
            finished_at=Now(),
            updated_at=Now(),
        )


def reopen_run(run: RunRef) -> RunRef:
    """Another attempt: what the dead process left open is interrupted, and the attempt gets a first row of its own."""
    rows = InteractionLog.objects.filter(run_id=run.run_id)
    rows.filter(status=CallStatus.STARTED).update(
        status=CallStatus.INTERRUPTED, usage_estimated=True, finished_at=Now(), updated_at=Now()
    )
    last: int | None = rows.aggregate(last=Max("call"))["last"]
    again = replace(run, first_call=0 if last is None else last + 1)
    open_run(again, in_chat=True)
    return again


def with_workflow(run: RunRef, workflow_id: UUID | None) -> RunRef:
    return replace(run, workflow_id=workflow_id)


def cost_of(usage: Usage, cached_input_tokens: int, price: Price | None) -> Decimal | None:
    """What these tokens cost; None without a price."""
    if price is None:
        return None
    fresh = usage.input_tokens - cached_input_tokens
    spent = fresh * price.input + cached_input_tokens * price.cached_input + usage.output_tokens * price.output
    return spent / _MILLION


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


def _latest_end() -> Any:
    return Now() + timedelta(seconds=config().llm.workflow_timeout + _GRACE)


def _of_call(call: Call) -> dict[str, Any]:
    return {
        "alias": call.alias,
        "provider": call.provider,
        "model_name": call.model,
        "model_parameters": call.parameters,
        "prompt_text": _content(call.messages),
        "prompt_id": call.prompt_id,
    }


def _write_closed(
    run: RunRef, closed: Sequence[Closed], *, status: CallStatus, steps: Sequence[dict[str, Any]] = ()
) -> None:
    for one in closed:
        values = _of_closed(one, status)
        if steps and one.call.number == run.first_call:
            values["steps"] = list(steps)
        InteractionLog.objects.filter(run_id=run.run_id, call=one.call.number).update(
            **values, workflow_id=run.workflow_id, attempt=run.attempt, finished_at=Now(), updated_at=Now()
        )
    if steps and all(one.call.number != run.first_call for one in closed):
        InteractionLog.objects.filter(run_id=run.run_id, call=run.first_call).update(steps=list(steps))


def _of_closed(closed: Closed, status: CallStatus) -> dict[str, Any]:
    price, usage = closed.call.price, closed.usage
    spoken = (closed.latency_ms or 0) - (closed.first_token_ms or 0)
    return _of_call(closed.call) | {
        "status": closed.status or status,
        "error_category": closed.error_category,
        "response_text": _content(closed.text) or "",
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": closed.cached_input_tokens,
        "usage_estimated": usage.estimated,
        "cost": cost_of(usage, closed.cached_input_tokens, price),
        "price": _price_as_json(price),
        "first_token_ms": closed.first_token_ms,
        "latency_ms": closed.latency_ms,
        "tokens_per_second": round(usage.output_tokens * 1000 / spoken, 2) if spoken > 0 else None,
        "metadata": closed.metadata,
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


def _content(content: Any) -> Any:
    """What the policy lets the log keep."""
    return None if config().llm.log_content == "none" else content
