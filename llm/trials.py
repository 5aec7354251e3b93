"""Trying an alias or a route out: one tiny call, which is a run of its workspace like any other.

Its budgets hold for it and the log accounts for it. This module brings LangChain with it.
"""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from django.db import transaction
from langchain_core.messages import HumanMessage

from kernel import database
from kernel.errors import ChainError
from kernel.ids import new_id
from llm import budgets, ledger, router
from llm.configuration import Configuration
from llm.errors import ProviderTimeout
from llm.events import ModelFinished, ModelStarted, Text
from llm.journal import RunJournal, RunRef
from llm.models import CallStatus
from llm.state import RunContext

QUESTION = "Answer with the one word: ready"
#: A model that thinks before it speaks uses some of them for that.
_MAX_TOKENS = 256
_MAX_CHARS = 200
#: Seconds that someone waits for the outcome.
_LONGEST = 60.0


@dataclass(kw_only=True)
class Trial:
    """What came of it; `code` and `message` are those of a failure. Times are milliseconds."""

    ok: bool = False
    code: str = ""
    message: str = ""
    alias: str = ""
    provider: str = ""
    model: str = ""
    answer: str = ""
    first_token_ms: int | None = None
    latency_ms: int | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    #: The tokens are our count.
    estimated: bool = False
    finish_reason: str = ""


async def try_out(name: str, configuration: Configuration, *, user_id: int | None, question: str = QUESTION) -> Trial:
    """Ask the alias or route (empty: the default) something small. Raises BudgetExceeded; the rest is an outcome."""
    ref = RunRef(run_id=new_id(), workspace_id=configuration.workspace_id, user_id=user_id)
    journal = RunJournal(ref)
    journal.under(configuration, workflow_id=None)
    await database.run(_open, ref, configuration)
    trial = Trial()
    status = CallStatus.STOPPED
    try:
        await ask(name, question, RunContext(configuration, journal, run_id=ref.run_id), trial)
        status = CallStatus.OK
    except ChainError as error:
        status = CallStatus.FAILED
        trial.code, trial.message = error.code, error.message
    finally:
        # Also when the caller went away: what was begun is accounted for.
        await asyncio.shield(database.run(ledger.close_run, journal.ending(status, error_category=trial.code)))
    trial.ok = status == CallStatus.OK
    return trial


def _open(ref: RunRef, configuration: Configuration) -> None:
    with budgets.refusals_told(), transaction.atomic():
        ledger.open_run(ref, in_chat=False)
        budgets.begin_run(configuration, ref)


async def ask(name: str, question: str, run: RunContext, trial: Trial) -> None:
    """One call on behalf of `run`; what comes is written into `trial`. Raises a ChainError."""
    asked = router.stream_route(name, [HumanMessage(question)], run=run, options={"max_tokens": _MAX_TOKENS})
    try:
        async with asyncio.timeout(_LONGEST), aclosing(asked) as events:
            async for event in events:
                match event:
                    case ModelStarted():
                        trial.alias, trial.provider, trial.model = event.alias, event.provider, event.model
                    case Text():
                        trial.answer = (trial.answer + event.text)[:_MAX_CHARS]
                    case ModelFinished():
                        trial.first_token_ms, trial.latency_ms = event.first_token_ms, event.latency_ms
                        trial.input_tokens, trial.output_tokens = event.input_tokens, event.output_tokens
                        trial.cached_input_tokens, trial.estimated = event.cached_input_tokens, event.estimated
                        trial.finish_reason = event.finish_reason
    except TimeoutError as error:
        raise ProviderTimeout from error
