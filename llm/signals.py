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

from django.dispatch import Signal

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
