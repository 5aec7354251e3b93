"""`manage.py llm test ALIAS`: one call of a model, as a run would make it.

With a workspace it is a run of that workspace: its budgets hold, and the log accounts for it. This module brings
LangChain with it.
"""

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import HumanMessage

from kernel import database
from kernel.errors import ChainError
from kernel.ids import new_id
from llm import aliases, ledger, router
from llm.configuration import Configuration
from llm.events import ModelFailed, ModelFinished, ModelStarted, Text
from llm.journal import RunJournal, RunRef
from llm.models import CallStatus
from llm.state import RunContext
from llm.usage import Usage


@dataclass
class Trial:
    """What came of it."""

    pieces: list[str] = field(default_factory=list)
    started: ModelStarted | None = None
    finished: ModelFinished | None = None
    #: The codes of the tries before.
    failures: list[str] = field(default_factory=list)

    def facts(self, holding: Configuration) -> dict[str, Any]:
        """For the terminal. Times are milliseconds; without a price the cost is None."""
        assert self.started is not None
        assert self.finished is not None
        end = self.finished
        spoken = end.latency_ms - (end.first_token_ms or 0)
        price = holding.price_of(self.started.provider, self.started.model)
        used = Usage(end.input_tokens, end.output_tokens, estimated=end.estimated)
        return {
            "alias": self.started.alias,
            "provider": self.started.provider,
            "model": self.started.model,
            "answer": "".join(self.pieces),
            "finish_reason": end.finish_reason,
            "first_token_ms": end.first_token_ms,
            "latency_ms": end.latency_ms,
            "tokens_per_second": round(end.output_tokens * 1000 / spoken, 1) if spoken > 0 else None,
            "input_tokens": end.input_tokens,
            "output_tokens": end.output_tokens,
            "estimated": end.estimated,
            "cost": ledger.cost_of(used, end.cached_input_tokens, price),
            "failed_tries": ", ".join(self.failures) or None,
        }


async def ask(alias: str, question: str, holding: Configuration, *, logged: bool) -> Trial:
    """Ask the alias or route. Raises a ChainError."""
    try:
        if not logged:
            return await _ask(alias, question, RunContext.unlogged(holding.workspace_id), holding)
        ref = RunRef(run_id=new_id(), workspace_id=holding.workspace_id, user_id=None)
        journal = RunJournal(ref)
        journal.under(holding, workflow_id=None)
        await database.run(ledger.open_run, ref, in_chat=False)
        status, code = CallStatus.STOPPED, ""
        try:
            trial = await _ask(alias, question, RunContext(holding, journal, run_id=ref.run_id), holding)
            status = CallStatus.OK
        except ChainError as error:
            status, code = CallStatus.FAILED, error.code
            raise
        finally:
            await database.run(ledger.close_run, journal.ending(status, error_category=code))
        return trial
    finally:
        await aliases.close()


async def _ask(alias: str, question: str, run: RunContext, holding: Configuration) -> Trial:
    run.configuration = holding
    trial = Trial()
    async with aclosing(router.stream_route(alias, [HumanMessage(question)], run=run)) as events:
        async for event in events:
            match event:
                case Text():
                    trial.pieces.append(event.text)
                case ModelStarted():
                    trial.started = event
                case ModelFailed():
                    trial.failures.append(event.code)
                case ModelFinished():
                    trial.finished = event
    return trial
