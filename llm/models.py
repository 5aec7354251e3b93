"""What teams configure in the database (Prompt, Workflow) and what every model call leaves behind (InteractionLog)."""

from django.conf import settings
from django.db import models

from accounts.models import WorkspaceRow


class Versioned(WorkspaceRow):
    """Versions under one name; at most one of them is active in a workspace."""

    name = models.CharField(max_length=255)
    version = models.PositiveIntegerField(default=1)
    is_active = models.BooleanField(default=False)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")

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

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class Prompt(Versioned):
    """A prompt template: `{"langchain_type": "PromptTemplate" | "ChatPromptTemplate", …}` (docs/prompts.md)."""

    prompt_template = models.JSONField()
    input_variables = models.JSONField(default=list, blank=True)


class Workflow(Versioned):
    """A list of steps as data (docs/workflows.md)."""

    description = models.TextField(blank=True)
    workflow_definition = models.JSONField()


class CallStatus(models.TextChoices):
    STARTED = "started"
    OK = "ok"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"


class InteractionLog(WorkspaceRow):
    """One model call: opened in the transaction that accepts the message, closed in the one that ends its run."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    session = models.ForeignKey("chat.ChatSession", models.SET_NULL, null=True, related_name="+")
    workflow = models.ForeignKey(Workflow, models.SET_NULL, null=True, related_name="+")
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
    prompt_text = models.JSONField(null=True)
    response_text = models.TextField(blank=True)
    #: Tokens; 0 only while the call is open. `usage_estimated`: counted by us, the provider sent none.
    input_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    usage_estimated = models.BooleanField(default=False)
    #: Milliseconds from the model call to its first text and to its end; NULL if it was never reached.
    first_token_ms = models.PositiveIntegerField(null=True)
    latency_ms = models.PositiveIntegerField(null=True)
    finished_at = models.DateTimeField(null=True)
    metadata = models.JSONField(default=dict)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run_id", "call"], name="interactionlog_once")]
        indexes = [
            models.Index(fields=["workspace", "-created_at"], name="interactionlog_recent"),
            models.Index(fields=["session", "-created_at"], name="interactionlog_session"),
        ]

    def __str__(self) -> str:
        return f"{self.alias or 'call'} {self.status} ({self.run_id})"
