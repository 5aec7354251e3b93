"""What teams configure in the database, and what every model call leaves behind.

Prompt, Workflow         immutable versions under a name; PromptSplit and Activation say which one answers, and why
ModelConfig, ModelPrice  aliases of models, and what their tokens cost
Budget, …                what may be used; BudgetCounter and Reservation keep count
ConfigGeneration         counts the changes of all these, so that every process notices them
InteractionLog           one row for each model call
CachedAnswer             answers that are given again
"""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self
from uuid import UUID

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models

from accounts.models import Row, Workspace, WorkspaceQuerySet, WorkspaceRow
from kernel.errors import Conflict

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


class VersionedQuerySet(WorkspaceQuerySet):
    """What goes past `save` keeps a version's content as it is, too."""

    def update(self, **values: Any) -> int:
        self._refuse_fixed(values)
        return super().update(**values)

    def bulk_update(self, objs: Iterable[Any], fields: Iterable[str], batch_size: int | None = None) -> int:
        fields = list(fields)
        self._refuse_fixed(fields)
        return super().bulk_update(objs, fields, batch_size)

    def bulk_create(self, objs: Iterable[Any], *args: Any, **options: Any) -> list[Any]:
        from llm import versions  # noqa: PLC0415  it needs these models

        rows = list(objs)
        for row in rows:
            versions.check(row)
        return super().bulk_create(rows, *args, **options)

    def _refuse_fixed(self, fields: Iterable[str]) -> None:
        fixed = {name for field in self.model.FIXED for name in (field, field.removesuffix("_id"))}
        if named := sorted(fixed & set(fields)):
            raise Conflict(f"{named[0]} of a version can't be changed; make a new version with create_new_version.")


class Versioned(WorkspaceRow):
    """Versions under one name; at most one of them is active in a workspace."""

    name = models.CharField(max_length=255)
    version = models.PositiveIntegerField(default=1)
    is_active = models.BooleanField(default=False)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    #: Why this version was made, in its author's words.
    note = models.CharField(max_length=500, blank=True)

    objects = VersionedQuerySet.as_manager()  # type: ignore[misc]  # mypy takes a manager for an attribute of rows

    #: What a version is; and that with what it is called: neither ever changes.
    CONTENT: ClassVar[tuple[str, ...]]
    FIXED: ClassVar[tuple[str, ...]]

    class Meta:
        abstract = True
        constraints = [
            models.UniqueConstraint(fields=["workspace", "name", "version"], name="%(class)s_version_once"),
            models.UniqueConstraint(
                fields=["workspace", "name"],
                condition=models.Q(is_active=True),
                name="%(class)s_one_active",
            ),
        ]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.FIXED = ("workspace_id", "name", "version", *cls.CONTENT)

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"

    def save(
        self,
        *,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Check a new version and number the change; raises Conflict if the content of a saved one would change."""
        from llm import versions  # noqa: PLC0415  it needs these models

        fields = None if update_fields is None else list(update_fields)
        options = {"force_insert": force_insert, "force_update": force_update, "using": using, "update_fields": fields}
        versions.save(self, partial(super().save, **options), fields)

    def check_content(self) -> None:
        """What this kind asks of its content. Raises PromptInvalid or WorkflowInvalid, which name the fault."""
        raise NotImplementedError

    @classmethod
    def create_new_version(
        cls, name: str, activate: bool = True, *, workspace: Workspace, user_id: int | None = None, **data: Any
    ) -> Self:
        """The next version of a name; llm.versions has everything else."""
        from llm import versions  # noqa: PLC0415  it needs these models

        return versions.create(cls, workspace.pk, name, user_id=user_id, activate=activate, **data)  # type: ignore[type-var]  # one of the two

    def activate(self, user_id: int | None = None) -> None:
        """Have this version answer alone under its name."""
        from llm import versions  # noqa: PLC0415  it needs these models

        versions.activate(self, user_id=user_id)

    def deactivate(self, user_id: int | None = None) -> None:
        """Have no version answer under the name; nothing happens if another one does, or none."""
        from llm import versions  # noqa: PLC0415  it needs these models

        versions.deactivate_row(self, user_id=user_id)


class Prompt(Versioned):
    """A prompt: `{"langchain_type": "PromptTemplate" | "ChatPromptTemplate" | "custom", …}` (docs/prompts.md)."""

    prompt_template = models.JSONField()
    input_variables = models.JSONField(default=list, blank=True)
    #: Variables that may be missing; they are then empty.
    optional_variables = models.JSONField(default=list, blank=True)

    CONTENT = ("prompt_template", "input_variables", "optional_variables")

    def check_content(self) -> None:
        from llm import prompt_rows  # noqa: PLC0415  imports LangChain, which start-up must not

        prompt_rows.check(self)

    def render(self, values: "dict[str, Any]") -> "list[BaseMessage]":
        """The messages; without `history`, `passages` or `context` they are empty.

        Raises PromptInvalid that names the variable at fault.
        """
        from llm import prompt_rows  # noqa: PLC0415  imports LangChain, which start-up must not

        return prompt_rows.render(self, values)

    def to_langchain_prompt(self) -> Any:
        """LangChain's PromptTemplate or ChatPromptTemplate; of a custom prompt a Runnable. Raises PromptInvalid."""
        from llm import prompt_rows  # noqa: PLC0415  imports LangChain, which start-up must not

        return prompt_rows.to_langchain(self)

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON."""
        return {
            "id": str(self.id),
            "name": self.name,
            "version": self.version,
            "is_active": self.is_active,
            "prompt_template": self.prompt_template,
            "input_variables": self.input_variables,
            "optional_variables": self.optional_variables,
            "note": self.note,
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
        }


class Workflow(Versioned):
    """Steps as data: a list of them, or an object with `steps` and options of the whole (docs/workflows.md)."""

    description = models.TextField(blank=True)
    workflow_definition = models.JSONField()

    CONTENT = ("description", "workflow_definition")

    def check_content(self) -> None:
        from llm import workflows  # noqa: PLC0415  imports LangChain, which start-up must not

        # Not by llm.configuration: it would keep what this transaction has seen, also if that is rolled back.
        mine = models.Q(workspace=None) | models.Q(workspace_id=self.workspace_id)
        known = ModelConfig.objects.filter(mine, is_active=True).values_list("alias", flat=True)
        workflows.compile_workflow(self.workflow_definition, models=set(known))

    def as_runnable(self, *, user_id: int | None = None, session_id: UUID | None = None, log: bool = True) -> Any:
        """A LangChain Runnable: takes the question or an object with it and variables, gives the text or the value.

        `user_id` and `session_id` say whose run it is; `log`: whether its calls have rows in the interaction log.
        """
        from llm import configuration, runnable  # noqa: PLC0415  as above

        version = configuration.WorkflowVersion(
            id=self.id, name=self.name, version=self.version, definition=self.workflow_definition
        )
        whose = runnable.Whose(self.workspace_id, version, user_id=user_id, session_id=session_id, log=log)
        return runnable.WorkflowRunnable(whose)

    def to_langchain_chain(self, log: bool | str = True, session_id: UUID | None = None) -> Any:
        """Another name for `as_runnable`."""
        return self.as_runnable(session_id=session_id, log=log not in (False, "false"))


class PromptSplit(WorkspaceRow):
    """Several versions of a prompt answer side by side; without it the active one does."""

    name = models.CharField(max_length=255)
    #: Version → its share in percent; they add up to 100.
    shares = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["workspace", "name"], name="promptsplit_once")]

    def __str__(self) -> str:
        return f"{self.name} {self.shares}"


class Activation(WorkspaceRow):
    """One change of what answers under a name: who did it, when, and which version came of it."""

    class Kind(models.TextChoices):
        PROMPT = "prompt"
        WORKFLOW = "workflow"

    class Action(models.TextChoices):
        CREATED = "created"
        ACTIVATED = "activated"
        DEACTIVATED = "deactivated"
        ROLLED_BACK = "rolled_back"
        SPLIT = "split"

    kind = models.CharField(max_length=10, choices=Kind)
    name = models.CharField(max_length=255)
    version = models.PositiveIntegerField(null=True)
    action = models.CharField(max_length=12, choices=Action)
    #: The shares of a split.
    detail = models.JSONField(default=dict, blank=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")

    class Meta:
        indexes = [models.Index(fields=["workspace", "kind", "name", "-id"], name="activation_history")]

    def __str__(self) -> str:
        return f"{self.kind} {self.name} v{self.version} {self.action}"


class ConfigGeneration(models.Model):
    """How often the configuration of a workspace (NULL: of all) has changed; see llm.configuration."""

    workspace = models.ForeignKey(Workspace, models.CASCADE, null=True, related_name="+")
    value = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace"], nulls_distinct=False, name="configgeneration_once")
        ]

    def __str__(self) -> str:
        return f"{self.workspace_id or 'all'}: {self.value}"


class ModelConfig(Row):
    """A model alias in the database; it takes the place of the setting's for its workspace, or for all (NULL)."""

    workspace = models.ForeignKey(Workspace, models.CASCADE, null=True, blank=True, related_name="+")
    alias = models.CharField(max_length=100)
    provider = models.CharField(max_length=100, blank=True)
    model_name = models.CharField(max_length=200, blank=True)
    #: Sampling options alone; keys and addresses have columns of their own.
    options = models.JSONField(default=dict, blank=True)
    base_url = models.CharField(max_length=500, blank=True)
    #: The key: encrypted, or the name of a variable of the server's environment.
    encrypted_key = models.TextField(blank=True, editable=False)
    key_variable = models.CharField(max_length=200, blank=True)
    #: Bounds that differ from the defaults, as a model alias of the setting names them.
    bounds = models.JSONField(default=dict, blank=True)
    #: `{"models", "strategy", "weights"}`: then this is a route, and has no provider.
    route = models.JSONField(null=True, blank=True)
    is_active = models.BooleanField(default=True)
    updated_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "alias"], nulls_distinct=False, name="modelconfig_alias_once")
        ]

    def __str__(self) -> str:
        return self.alias


class ModelPrice(Row):
    """What a model's tokens cost from a moment on, for a million tokens, in the operator's one currency."""

    provider = models.CharField(max_length=100, blank=True, help_text="Empty: with every provider.")
    model_name = models.CharField(max_length=200)
    input_price = models.DecimalField(max_digits=14, decimal_places=6)
    output_price = models.DecimalField(max_digits=14, decimal_places=6)
    #: NULL: as `input_price`.
    cached_input_price = models.DecimalField(max_digits=14, decimal_places=6, null=True, blank=True)
    valid_from = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["provider", "model_name", "valid_from"], name="modelprice_once")]

    def __str__(self) -> str:
        return f"{self.model_name} from {self.valid_from:%Y-%m-%d}"


class BudgetKind(models.TextChoices):
    MESSAGES = "messages_per_minute"
    RUNS = "concurrent_runs"
    TOKENS = "tokens_per_day"
    MONEY = "money_per_month"


class Budget(WorkspaceRow):
    """A bound of a workspace; the setting's LLM["BUDGETS"] hold for all workspaces beside it."""

    class Per(models.TextChoices):
        WORKSPACE = "workspace"
        USER = "user"

    kind = models.CharField(max_length=20, choices=BudgetKind)
    limit = models.DecimalField(max_digits=20, decimal_places=6)
    per = models.CharField(max_length=10, choices=Per, default=Per.WORKSPACE)
    #: Only for this person; NULL: for all.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True, blank=True, related_name="+")
    is_active = models.BooleanField(default=True)

    class Meta:
        indexes = [models.Index(fields=["workspace"], condition=models.Q(is_active=True), name="budget_active")]

    def __str__(self) -> str:
        return f"{self.kind} {self.limit:g} per {self.per}"


class BudgetCounter(WorkspaceRow):
    """What of a budget is used and held back in one window of time."""

    #: The kind and whom it counts.
    key = models.CharField(max_length=200)
    window = models.DateTimeField()
    used = models.DecimalField(max_digits=20, decimal_places=9, default=0)
    reserved = models.DecimalField(max_digits=20, decimal_places=9, default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["workspace", "key", "window"], name="budgetcounter_once")]
        indexes = [models.Index(fields=["window"], name="budgetcounter_window")]

    def __str__(self) -> str:
        return f"{self.key}: {self.used:g} + {self.reserved:g}"


class Reservation(WorkspaceRow):
    """What a run holds back of a counter until it ends; whoever deletes the row gives it back, once."""

    counter = models.ForeignKey(BudgetCounter, models.CASCADE, related_name="+")
    run_id = models.UUIDField()
    #: The call it is for; NULL: the whole run.
    call = models.PositiveSmallIntegerField(null=True)
    amount = models.DecimalField(max_digits=20, decimal_places=9)

    class Meta:
        indexes = [models.Index(fields=["run_id"], name="reservation_run")]

    def __str__(self) -> str:
        return f"{self.amount:g} for {self.run_id}"


class CallStatus(models.TextChoices):
    STARTED = "started"
    OK = "ok"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    CACHED = "cached"


class InteractionLog(WorkspaceRow):
    """One model call: opened before the provider is asked, closed in the transaction that ends its run, or earlier.

    The first row of a run is opened with the run itself, so a run that never came to a call has one too.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    session = models.ForeignKey("chat.ChatSession", models.SET_NULL, null=True, related_name="+")
    #: The versions that were used.
    workflow = models.ForeignKey(Workflow, models.SET_NULL, null=True, related_name="+")
    prompt = models.ForeignKey(Prompt, models.SET_NULL, null=True, related_name="+")
    #: The run this call belongs to, and which of its calls it is.
    run_id = models.UUIDField()
    call = models.PositiveSmallIntegerField(default=0)
    attempt = models.PositiveSmallIntegerField(default=1)
    status = models.CharField(max_length=12, choices=CallStatus, default=CallStatus.STARTED)
    error_category = models.CharField(max_length=64, blank=True)
    alias = models.CharField(max_length=100, blank=True)
    provider = models.CharField(max_length=100, blank=True)
    model_name = models.CharField(max_length=200, blank=True)
    model_parameters = models.JSONField(default=dict)
    #: By LLM["LOG_CONTENT"]: as it was, redacted, or nothing.
    prompt_text = models.JSONField(null=True)
    response_text = models.TextField(blank=True)
    #: Tokens; 0 only while the call is open, for a cached answer, and for a run without a call. `cached_input_tokens`
    #: are part of `input_tokens`. `usage_estimated`: counted by us, the provider sent none.
    input_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    cached_input_tokens = models.PositiveIntegerField(default=0)
    usage_estimated = models.BooleanField(default=False)
    #: What it cost, and the price that was used; NULL: the model has no price.
    cost = models.DecimalField(max_digits=18, decimal_places=9, null=True)
    price = models.JSONField(null=True)
    #: Milliseconds from the model call to its first text and to its end; NULL if it was never reached.
    first_token_ms = models.PositiveIntegerField(null=True)
    latency_ms = models.PositiveIntegerField(null=True)
    tokens_per_second = models.FloatField(null=True)
    #: The steps of the run with their times, on its first row.
    steps = models.JSONField(default=list)
    #: A run outside of a chat that is open after this died with its process.
    closes_by = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    metadata = models.JSONField(default=dict)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run_id", "call"], name="interactionlog_once")]
        indexes = [
            models.Index(fields=["workspace", "-created_at"], name="interactionlog_recent"),
            models.Index(fields=["session", "-created_at"], name="interactionlog_session"),
            models.Index(fields=["workspace", "user", "-created_at"], name="interactionlog_user"),
            models.Index(fields=["workspace", "workflow", "-created_at"], name="interactionlog_workflow"),
            models.Index(fields=["workspace", "model_name", "-created_at"], name="interactionlog_model"),
            models.Index(fields=["workspace", "status", "-created_at"], name="interactionlog_status"),
            models.Index(fields=["closes_by"], condition=models.Q(status="started"), name="interactionlog_overdue"),
        ]
        permissions = [("read_interactionlog_texts", "Can read what the log kept of prompts and answers")]

    def __str__(self) -> str:
        return f"{self.alias or 'call'} {self.status} ({self.run_id})"


class CachedAnswer(WorkspaceRow):
    """A model's answer that the same request gets again, for workflows that ask for it."""

    #: SHA-256 of everything the answer depends on.
    key = models.CharField(max_length=64)
    workflow = models.ForeignKey(Workflow, models.CASCADE, null=True, related_name="+")
    text = models.TextField()
    input_tokens = models.PositiveIntegerField()
    output_tokens = models.PositiveIntegerField()
    #: Documents whose passages the answer was made from; it goes when one of them does.
    document_ids = ArrayField(models.UUIDField(), default=list)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["workspace", "key"], name="cachedanswer_once")]
        indexes = [
            models.Index(fields=["expires_at"], name="cachedanswer_expiry"),
            GinIndex(fields=["document_ids"], name="cachedanswer_documents"),
        ]

    def __str__(self) -> str:
        return self.key[:12]
