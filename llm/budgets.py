"""Budgets: what a workspace or a person may use, checked and held back before it is used.

A run is counted in the transaction that opens it, a call in the one that writes its row; whoever ends them counts what
they really came to and gives the rest back (llm.counters). What can't be counted isn't done: without the database
nothing is accepted at all (docs/decisions/0006).
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from kernel.conf import config
from llm import counters
from llm.counters import Claim, Refusal
from llm.errors import BudgetExceeded, PriceMissing
from llm.models import Budget, BudgetKind
from llm.signals import budget_exceeded

if TYPE_CHECKING:
    from llm.configuration import Bound, Configuration, Price
    from llm.journal import Call, RunRef

logger = logging.getLogger(__name__)

#: Tokens that a provider's own format may add to a message, and to a request.
_PER_MESSAGE = 16
_PER_REQUEST = 64
_PER_RUN = (BudgetKind.MESSAGES, BudgetKind.RUNS)
_PER_CALL = (BudgetKind.TOKENS, BudgetKind.MONEY)
_MILLION = Decimal(1_000_000)
_BILLIONTH = Decimal("0.000000001")
_SAID = {
    BudgetKind.MESSAGES: "{limit} messages a minute",
    BudgetKind.RUNS: "{limit} answers at once",
    BudgetKind.TOKENS: "{limit} tokens a day",
    BudgetKind.MONEY: "{limit} a month",
}


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Which budget had no room, and for whom."""

    workspace_id: UUID
    kind: str
    user_id: int | None


class NoRoom(BudgetExceeded):
    """BudgetExceeded, with what the signal tells."""

    def __init__(self, run: "RunRef", refusal: Refusal) -> None:
        claim = refusal.claim
        bound = _SAID[BudgetKind(claim.kind)].format(limit=f"{claim.limit.normalize():f}")
        whose = "Your budget" if ":user:" in claim.key else "The budget of this workspace"
        if refusal.retry_after is None:
            text = f"{whose} is {bound}, and this alone may take more; ask for less, or for a budget."
        else:
            text = f"{whose}, {bound}, has no room for this now."
        super().__init__(text, retry_after=refusal.retry_after)
        self.refused = Refused(workspace_id=run.workspace_id, kind=claim.kind, user_id=run.user_id)


def begin_run(configuration: "Configuration", run: "RunRef") -> bool:
    """Count a run, in the transaction that opens it, inside `refusals_told`. Whether it holds anything back.

    Raises BudgetExceeded: then roll back. A repeated request must not come here.
    """
    claims = [_claim(key, bound, Decimal(1)) for key, bound in applicable(configuration, run.user_id, _PER_RUN)]
    if claims:
        _take(run, claims, call=None)
    return bool(claims)


def begin_call(configuration: "Configuration", run: "RunRef", call: "Call") -> None:
    """Hold back the most that a call may use, in the transaction that writes its row.

    Raises BudgetExceeded, and PriceMissing where a money budget meets a model without a price.
    """
    if call.cached:
        return
    bounds = applicable(configuration, run.user_id, _PER_CALL)
    if bounds:
        most = most_tokens(call)
        _take(run, [_claim(key, bound, _amount(bound, call, most)) for key, bound in bounds], call=call.number)


def holds_calls(configuration: "Configuration", user_id: int | None) -> bool:
    """Whether a call of this person must be counted before it is made."""
    return bool(applicable(configuration, user_id, _PER_CALL))


def output_bound(configuration: "Configuration", own: int | None, *, user_id: int | None) -> int | None:
    """The answer's bound in tokens that a call is sent with: its model's own, else what a budget holds back for it."""
    if own is not None or not holds_calls(configuration, user_id):
        return own
    return config().llm.reserve_output_tokens


def most_tokens(call: "Call") -> tuple[int, int]:
    """The input and the output tokens that a call can't exceed: no tokeniser makes more than one token of a byte."""
    bytes_ = sum(len(_said(message).encode("utf-8", "surrogatepass")) + _PER_MESSAGE for message in call.messages)
    answers = call.parameters.get("n")
    said = call.max_output_tokens or config().llm.reserve_output_tokens
    return bytes_ + call.tool_bytes + _PER_REQUEST, said * (answers if isinstance(answers, int) else 1)


@contextmanager
def refusals_told() -> Iterator[None]:
    """Stand around a transaction that counts: the signal `budget_exceeded` is sent once it has rolled back."""
    try:
        yield
    except NoRoom as error:
        told = error.refused
        logger.info(
            "action=budget_exceeded workspace=%s kind=%s user=%s", told.workspace_id, told.kind, told.user_id or "-"
        )
        budget_exceeded.send_robust(sender=Budget, workspace_id=told.workspace_id, kind=told.kind, user_id=told.user_id)
        raise


def applicable(
    configuration: "Configuration", user_id: int | None, kinds: Sequence[str] = tuple(BudgetKind)
) -> "list[tuple[str, Bound]]":
    """The counters' keys, in their order, each with the tightest bound that holds for this person."""
    tightest: dict[str, Bound] = {}
    for bound in configuration.budgets:
        if bound.kind not in kinds or (bound.user_id is not None and bound.user_id != user_id):
            continue
        # All callers without an account share one count.
        personal = bound.per == Budget.Per.USER or bound.user_id is not None
        key = f"{bound.kind}:user:{user_id or '-'}" if personal else bound.kind
        if key not in tightest or bound.limit < tightest[key].limit:
            tightest[key] = bound
    return sorted(tightest.items())


def _claim(key: str, bound: "Bound", amount: Decimal) -> Claim:
    return Claim(key=key, kind=bound.kind, amount=amount, limit=bound.limit)


def _amount(bound: "Bound", call: "Call", most: tuple[int, int]) -> Decimal:
    if bound.kind == BudgetKind.TOKENS:
        return Decimal(sum(most))
    if call.price is None:
        logger.error("action=price_missing provider=%s model=%s", call.provider, call.model)
        raise PriceMissing(
            f"The model {call.model!r} of {call.provider!r} has no price, so a money budget can't be kept:"
            " the operator must set one (docs/cost.md)."
        )
    return most_money(call.price, *most)


def most_money(price: "Price", input_tokens: int, output_tokens: int) -> Decimal:
    spent = input_tokens * max(price.input, price.cached_input) + output_tokens * price.output
    return (spent / _MILLION).quantize(_BILLIONTH, rounding=ROUND_UP)


def _take(run: "RunRef", claims: list[Claim], *, call: int | None) -> None:
    refusal = counters.take(run.workspace_id, claims, run_id=run.run_id, call=call)
    if refusal is not None:
        raise NoRoom(run, refusal)


def _said(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str) and len(message) <= 2:
        return content
    return json.dumps(message, ensure_ascii=False, default=str)
