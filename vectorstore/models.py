"""Collections of documents, cut into chunks with a vector each."""

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
