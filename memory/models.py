"""Memory's rows: what a background job makes of a conversation, and the job itself.

The conversation stays the truth: each row can be made again, and none outlives the messages that it was made from.
"""

from typing import Any

from django.db import models
from django.db.models import F, Func, Q
from pgvector.django import VectorField

from accounts.models import WorkspaceRow
from memory.leases import ProcessLease as ProcessLease  # noqa: PLC0414  Django finds models here


class BitsField(models.Field):  # type: ignore[type-arg]  # it takes none while it runs
    """Bits, of whatever length."""

    def db_type(self, connection: Any) -> str:
        return "bit varying"


class PlacesField(models.Field):  # type: ignore[type-arg]  # it takes none while it runs
    """Places in a conversation, as ranges of them; written in PostgreSQL's own words."""

    def db_type(self, connection: Any) -> str:
        return "int4multirange"


class Summary(WorkspaceRow):
    """What was said on a branch from its beginning to the message `through`, in few words.

    Never changed: a later one is a new row. It goes in the transaction that deletes a message that it covers.
    """

    session = models.ForeignKey("chat.ChatSession", models.CASCADE, related_name="+", db_index=False)
    through = models.ForeignKey("chat.ChatHistory", models.CASCADE, related_name="+")
    #: The place of `through`.
    through_order = models.PositiveIntegerField()
    #: Counts a session's summaries.
    version = models.PositiveIntegerField()
    text = models.TextField()
    #: The alias that wrote it, and SHA-256 of what it was told to do.
    model = models.CharField(max_length=255)
    prompt_hash = models.CharField(max_length=64)

    class Meta:
        verbose_name_plural = "summaries"
        constraints = [models.UniqueConstraint(fields=["session", "version"], name="summary_version_once")]

    def __str__(self) -> str:
        return f"{self.session_id} up to #{self.through_order}, version {self.version}"


class MessageVector(WorkspaceRow):
    """A message's vector, for the session's own recall. It goes in the transaction that deletes the message."""

    session = models.ForeignKey("chat.ChatSession", models.CASCADE, related_name="+", db_index=False)
    message = models.OneToOneField("chat.ChatHistory", models.CASCADE, related_name="+")
    #: The message's place.
    order = models.PositiveIntegerField()
    embedding = VectorField()
    embedding_model = models.CharField(max_length=200)
    dimension = models.PositiveIntegerField()
    #: The signs of the vector's components: a thirtieth of its size, for the first look.
    bits = models.GeneratedField(
        expression=Func(F("embedding"), function="binary_quantize", output_field=BitsField()),
        output_field=BitsField(),
        db_persist=True,
    )

    class Meta:
        # The first look reads nothing but this: a session's entries lie side by side, its rows don't.
        indexes = [
            models.Index(fields=["session", "order"], include=["dimension", "bits"], name="messagevector_first_look")
        ]

    def __str__(self) -> str:
        return str(self.message_id)


class BranchPath(WorkspaceRow):
    """The places of the messages on a session's branch (memory.paths). It stays true: parents never change."""

    session = models.OneToOneField("chat.ChatSession", models.CASCADE, related_name="+")
    places = PlacesField()

    def __str__(self) -> str:
        return str(self.session_id)


class MemoryJob(WorkspaceRow):
    """What a session's memory has still to make, which a lost broker and a dead worker leave in place."""

    session = models.OneToOneField("chat.ChatSession", models.CASCADE, related_name="+")
    #: What its workflow's memory asks for: memory.jobs.Needs.
    needs = models.JSONField(default=dict)
    #: Grows with every turn: work that was begun before it may have missed something.
    wanted = models.PositiveIntegerField(default=1)
    #: Grows with each claim: who works on an earlier one can't write any more.
    fence = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)
    open = models.BooleanField(default=True)
    owner = models.CharField(max_length=64, blank=True)
    #: Free to be claimed from then on; a claim moves it ahead.
    lease_expires_at = models.DateTimeField()
    #: When a broker was last told; the sweeper tells it again.
    sent_at = models.DateTimeField(null=True)
    error_code = models.CharField(max_length=64, blank=True)

    class Meta:
        indexes = [models.Index(fields=["lease_expires_at"], condition=Q(open=True), name="memoryjob_open_by_lease")]

    def __str__(self) -> str:
        return f"memory of {self.session_id}, attempt {self.attempts}"
