"""Collections of documents, cut into chunks with a vector each; and answers that near questions are given again."""

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from pgvector.django import VectorField

from accounts.models import WorkspaceRow


class Collection(WorkspaceRow):
    """Documents that are searched together; all its vectors come from one embedding model."""

    name = models.CharField(max_length=200)
    embedding_model = models.CharField(max_length=200)
    dimension = models.PositiveIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["workspace", "name"], name="collection_name_once")]

    def __str__(self) -> str:
        return self.name


class Document(WorkspaceRow):
    """A text that was indexed. The same content is kept once in a collection; `source` says where it came from."""

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="documents")
    title = models.CharField(max_length=500)
    source = models.CharField(max_length=1000)
    content_hash = models.CharField(max_length=64)
    metadata = models.JSONField(default=dict, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["collection", "source"], name="document_source_once")]
        indexes = [models.Index(fields=["collection", "content_hash"], name="document_hash")]

    def __str__(self) -> str:
        return self.title


class Chunk(WorkspaceRow):
    """A passage of a document: characters `start` to `end` of its text, with its vector."""

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="chunks")
    document = models.ForeignKey(Document, models.CASCADE, related_name="chunks")
    position = models.PositiveIntegerField()
    text = models.TextField()
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    #: No dimension in the column: it belongs to the collection, and collections may differ.
    embedding = VectorField()
    metadata = models.JSONField(default=dict, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["document", "position"], name="chunk_position_once")]

    def __str__(self) -> str:
        return f"{self.document_id} #{self.position}"


class SemanticAnswer(WorkspaceRow):
    """A model's answer to a question, for those that mean the same; see vectorstore.answers."""

    workflow = models.ForeignKey("llm.Workflow", models.CASCADE, null=True, related_name="+")
    #: SHA-256 of everything the answer depends on but the question's words.
    scope = models.CharField(max_length=64)
    #: SHA-256 of the question: asked twice at once, it is kept once.
    question_hash = models.CharField(max_length=64)
    #: The question's; its model belongs to the scope.
    embedding = VectorField()
    text = models.TextField()
    input_tokens = models.PositiveIntegerField()
    output_tokens = models.PositiveIntegerField()
    #: Documents whose passages the answer was made from; it goes when one of them does.
    document_ids = ArrayField(models.UUIDField(), default=list)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "scope", "question_hash"], name="semanticanswer_once")
        ]
        indexes = [
            models.Index(fields=["expires_at"], name="semanticanswer_expiry"),
            GinIndex(fields=["document_ids"], name="semanticanswer_documents"),
        ]

    def __str__(self) -> str:
        return self.scope[:12]
