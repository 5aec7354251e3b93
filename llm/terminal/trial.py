"""`manage.py llm test ALIAS`: one call of a model, as a run would make it. This module brings LangChain with it."""

from dataclasses import replace
from typing import Any

from django.core.management.base import CommandError

from kernel.errors import ChainError
from llm import aliases, ledger, trials
from llm.configuration import Configuration
from llm.state import RunContext
from llm.trials import Trial
from llm.usage import Usage


async def ask(alias: str, question: str, holding: Configuration, *, logged: bool) -> dict[str, Any]:
    """Ask the alias or route; what came of it. `logged`: as a run of the workspace, by its budgets and in its log.

    Raises CommandError that begins with the code of the failure.
    """
    try:
        if logged:
            trial = await trials.try_out(alias, holding, user_id=None, question=question)
        else:
            trial = await _beside_the_log(alias, question, holding)
    finally:
        await aliases.close()
    if trial.code:
        raise CommandError(f"{trial.code}: {trial.message}")
    return _facts(trial, holding)


async def _beside_the_log(alias: str, question: str, holding: Configuration) -> Trial:
    """A row of the log belongs to a workspace, and none was named."""
    trial = Trial()
    run = replace(RunContext.unlogged(holding.workspace_id), configuration=holding)
    try:
        await trials.ask(alias, question, run, trial)
    except ChainError as error:
        trial.code, trial.message = error.code, error.message
    return trial


def _facts(trial: Trial, holding: Configuration) -> dict[str, Any]:
    """Times are milliseconds; the cost is None without a price."""
    spoken = (trial.latency_ms or 0) - (trial.first_token_ms or 0)
    used = Usage(trial.input_tokens, trial.output_tokens, estimated=trial.estimated)
    price = holding.price_of(trial.provider, trial.model)
    return {
        "alias": trial.alias,
        "provider": trial.provider,
        "model": trial.model,
        "answer": trial.answer,
        "finish_reason": trial.finish_reason,
        "first_token_ms": trial.first_token_ms,
        "latency_ms": trial.latency_ms,
        "tokens_per_second": round(trial.output_tokens * 1000 / spoken, 1) if spoken > 0 else None,
        "input_tokens": trial.input_tokens,
        "output_tokens": trial.output_tokens,
        "estimated": trial.estimated,
        "cost": ledger.cost_of(used, trial.cached_input_tokens, price),
    }
