"""Django signals of the platform's lifecycle. Receivers run after the commit of what they tell, in a database thread;
one that raises is logged and disturbs nothing. `sender` is the class named; everything else comes by keyword.

| signal | sender | arguments |
|---|---|---|
| `run_started` | InteractionLog | `run` (llm.journal.RunRef) |
| `first_token` | InteractionLog | `run` |
| `run_finished` | InteractionLog | `run`, `status`: ok, stopped |
| `run_failed` | InteractionLog | `run`, `status`: failed, interrupted; `error_category` |
| `prompt_created`, `…_activated`, `…_deactivated`, `…_rolled_back`, `…_split` | Prompt | `workspace_id`, `name`,
  `version`, `user_id` |
| `workflow_created`, `…_activated`, `…_deactivated`, `…_rolled_back` | Workflow | the same |
| `model_changed` | ModelConfig | `workspace_id`, `alias`, `user_id` |
| `budget_exceeded` | Budget | `workspace_id`, `kind`, `user_id` |
| `breaker_opened`, `breaker_closed` | ModelConfig | `alias`; sent where it happens, tied to no commit |
"""

from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.dispatch import Signal

if TYPE_CHECKING:
    from llm.journal import Ending, RunRef

run_started = Signal()
first_token = Signal()
run_finished = Signal()
run_failed = Signal()
prompt_created = Signal()
prompt_activated = Signal()
prompt_deactivated = Signal()
prompt_rolled_back = Signal()
prompt_split = Signal()
workflow_created = Signal()
workflow_activated = Signal()
workflow_deactivated = Signal()
workflow_rolled_back = Signal()
model_changed = Signal()
budget_exceeded = Signal()
breaker_opened = Signal()
breaker_closed = Signal()


def tell(signal: Signal, **arguments: Any) -> None:
    """Send a signal about a run; what a receiver raises is logged by Django and harms nothing."""
    # Who imports the signals (an app's ready()) may do so before the models are loaded.
    from llm.models import InteractionLog  # noqa: PLC0415

    signal.send_robust(InteractionLog, **arguments)


def run_opened(run: "RunRef") -> None:
    """`run_started`, once the transaction that opens the run has committed."""
    transaction.on_commit(lambda: tell(run_started, run=run), robust=True)


def run_closed(ending: "Ending") -> None:
    """`run_finished` or `run_failed`, once the transaction that ends the run has committed."""
    status = str(ending.status)
    if status in ("ok", "stopped", "cached"):
        transaction.on_commit(lambda: tell(run_finished, run=ending.run, status=status), robust=True)
    else:
        category = ending.error_category
        transaction.on_commit(
            lambda: tell(run_failed, run=ending.run, status=status, error_category=category), robust=True
        )
