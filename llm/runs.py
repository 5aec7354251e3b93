"""The durable half of a run outside of a chat: it is opened, it is ended, and what it came to.

Each function is one unit of database work (`kernel.database.run`), at most one transaction.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import transaction
from django.db.models import Case, Count, Max, Q, Sum, When
from django.db.models.functions import Coalesce

from accounts.access import Caller, workspace_for
from kernel.conf import config
from kernel.errors import NotFound, TooLarge
from kernel.ids import new_id
from kernel.text import storable
from llm import budgets, ledger
from llm.configuration import Configuration, WorkflowVersion
from llm.journal import Ending, RunRef
from llm.models import InteractionLog


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is to be run, and for whom. The caller's right to it has been checked.

    `version` None: the active one. `before_order`: only the session's messages before this one are its history.
    """

    workspace_id: UUID
    workflow: str
    version: int | None = None
    question: str = ""
    variables: dict[str, Any] = field(default_factory=dict)
    user_id: int | None = None
    session_id: UUID | None = None
    before_order: int = 0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a run's model calls came to. `cost` is a decimal as text; None: a model has no price."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    estimated: bool = False
    cost: str | None = None


def ask_for(
    caller: Caller,
    workflow: str,
    *,
    question: str = "",
    variables: dict[str, Any] | None = None,
    version: int | None = None,
    session: UUID | None = None,
    workspace: UUID | None = None,
) -> Ask:
    """What the caller asks for; without `workspace` in the caller's own. `session`: whose messages are its history.

    Raises Forbidden for a workspace the caller can't write in, NotFound for another's session, TooLarge.
    """
    limit = config().chat.max_text_chars
    if len(question) > limit:
        raise TooLarge(f"A question may have {limit} characters; this one has {len(question)}.")
    place = workspace_for(caller, workspace)
    before_order = 0
    if session is not None:
        # By its label: conversations are a layer above.
        sessions: Any = apps.get_model("chat", "ChatSession")
        found = sessions.objects.visible_to(caller).filter(id=session, workspace=place).first()
        if found is None:
            raise NotFound("There is no such session among yours in this workspace.")
        before_order = found.last_order + 1
    return Ask(
        workspace_id=place.pk,
        workflow=storable(workflow),
        version=version,
        question=storable(question),
        variables=variables or {},
        user_id=caller.user_id,
        session_id=session,
        before_order=before_order,
    )


def open_run(ask: Ask, workflow: WorkflowVersion, configuration: Configuration) -> RunRef:
    """Write the run's first row. Raises BudgetExceeded, and WorkflowInvalid before anything is written."""
    from llm import workflows  # noqa: PLC0415  brings LangChain, which start-up must not

    workflows.compile_workflow(workflow.definition, models=configuration.models)
    run = RunRef(
        run_id=new_id(),
        workspace_id=ask.workspace_id,
        user_id=ask.user_id,
        session_id=ask.session_id,
        workflow_id=workflow.id,
    )
    with budgets.refusals_told(), transaction.atomic():
        ledger.open_run(run, in_chat=False)
        # Last: the workspace's counters are ours alone until the commit.
        budgets.begin_run(configuration, run)
    return run


def end_run(ending: Ending) -> Usage:
    """Write a run's end; what it came to."""
    with transaction.atomic():
        ledger.close_run(ending)
        return usage_of(ending.run.run_id)


def usage_of(run_id: UUID) -> Usage:
    """The sums over a run's rows (one query)."""
    called = ~Q(alias="")
    unpriced = called & Q(cost=None)
    found = InteractionLog.objects.filter(run_id=run_id).aggregate(
        calls=Count("id", filter=called),
        input_tokens=Coalesce(Sum("input_tokens"), 0),
        output_tokens=Coalesce(Sum("output_tokens"), 0),
        cached_input_tokens=Coalesce(Sum("cached_input_tokens"), 0),
        estimated=Max(Case(When(called & Q(usage_estimated=True), then=1), default=0)),
        unpriced=Count("id", filter=unpriced),
        cost=Sum("cost"),
    )
    cost, unpriced_calls = found.pop("cost"), found.pop("unpriced")
    known = cost is not None and not unpriced_calls
    return Usage(**found | {"estimated": bool(found["estimated"]), "cost": f"{cost:f}" if known else None})
