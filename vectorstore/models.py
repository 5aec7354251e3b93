"""Collections of documents, cut into chunks; the vectors that find them; and answers that near questions get again.

PostgreSQL is the truth, whatever holds the vectors: a vector whose chunk is gone finds nothing.
"""

from uuid import uuid4

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models import Q
from pgvector.django import VectorField

from accounts.models import Row, WorkspaceRow


class Access(models.TextChoices):
    """Who finds what a collection holds."""

    WORKSPACE = "workspace", "every member of the workspace"
    RESTRICTED = "restricted", "its own members and the workspace's admins"


class Collection(WorkspaceRow):
    """Documents that are searched together."""

    name = models.CharField(max_length=200)
    description = models.CharField(max_length=1000, blank=True)
    #: PostgreSQL's text search configuration for its documents: stemming and stop words.
    language = models.CharField(max_length=63, default="english")
    access = models.CharField(max_length=10, choices=Access, default=Access.WORKSPACE)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["workspace", "name"], name="collection_name_once")]

    def __str__(self) -> str:
        return self.name


class CollectionMember(Row):
    """A person who reads a restricted collection, and may add to it."""

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="members")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    can_write = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["collection", "user"], name="collectionmember_once")]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.collection_id}"


class SetState(models.TextChoices):
    """A search asks the `active` set; a `building` one is being filled to take its place."""

    ACTIVE = "active"
    BUILDING = "building"
    RETIRED = "retired"


class IndexState(models.TextChoices):
    """Searches ask an index that is `ready`; without one they compare with every vector."""

    NONE = "none"
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


class VectorSet(WorkspaceRow):
    """A collection's vectors from one embedding model, in one backend. Vectors of two sets can't be compared."""

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="vector_sets")
    backend = models.CharField(max_length=100, default="pgvector")
    embedding_model = models.CharField(max_length=200)
    dimension = models.PositiveIntegerField()
    state = models.CharField(max_length=8, choices=SetState, default=SetState.ACTIVE)
    #: Filling a set is one worker's work at a time.
    owner = models.CharField(max_length=64, blank=True)
    lease_expires_at = models.DateTimeField(null=True)
    #: Why it could not be filled, or indexed.
    reason = models.CharField(max_length=500, blank=True)
    #: The approximate index of a large set in backend `pgvector`; see vectorstore.indexing.
    index = models.CharField(max_length=8, choices=IndexState, default=IndexState.NONE)
    #: What it is over: `halfvec` or `vector`; empty: there is none.
    index_type = models.CharField(max_length=7, blank=True)
    #: Vectors that it had when it was built.
    index_rows = models.PositiveIntegerField(default=0)
    index_attempts = models.PositiveSmallIntegerField(default=0)
    index_owner = models.CharField(max_length=64, blank=True)
    #: When it is looked at next; whoever builds it moves this ahead. Its own lease: the other one's worker may build.
    index_due_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["collection"], condition=Q(state="active"), name="vectorset_active_once"),
            models.UniqueConstraint(
                fields=["collection"], condition=Q(state="building"), name="vectorset_building_once"
            ),
        ]
        indexes = [
            models.Index(fields=["state", "lease_expires_at"], name="vectorset_by_state"),
            models.Index(fields=["index", "index_due_at"], condition=Q(backend="pgvector"), name="vectorset_by_index"),
        ]

    def __str__(self) -> str:
        return f"{self.embedding_model} ({self.dimension}), {self.state}"


class DocumentState(models.TextChoices):
    """What was last asked for a document; what it had before is found until the new text takes its place."""

    QUEUED = "queued"
    PARSING = "parsing"
    EMBEDDING = "embedding"
    READY = "ready"
    FAILED = "failed"


class Document(WorkspaceRow):
    """A text that is indexed. The same content is kept once in a collection; `source` says where it came from."""

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="documents")
    title = models.CharField(max_length=500)
    source = models.CharField(max_length=1000)
    #: SHA-256 of the text that is found now; empty: none yet.
    content_hash = models.CharField(max_length=64, blank=True)
    #: SHA-256 of the bytes that the text was read from; empty: it was given as text.
    upload_hash = models.CharField(max_length=64, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    #: What was read out of it; a citation opens in here.
    text = models.TextField(blank=True)
    markdown = models.BooleanField(default=False)
    content_type = models.CharField(max_length=200, blank=True)
    size = models.PositiveBigIntegerField(default=0)
    chunk_count = models.PositiveIntegerField(default=0)
    #: The content's own date if it tells one (an e-mail's), for searches that prefer what is new.
    dated_at = models.DateTimeField(null=True, blank=True)
    indexed_at = models.DateTimeField(null=True, blank=True)

    state = models.CharField(max_length=9, choices=DocumentState, default=DocumentState.QUEUED)
    #: Chunks embedded and to be embedded, while it is `embedding`.
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    #: Why it failed: a code, and a sentence for people.
    error_code = models.CharField(max_length=64, blank=True)
    reason = models.CharField(max_length=500, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["collection", "source"], name="document_source_once")]
        indexes = [
            models.Index(fields=["collection", "content_hash"], name="document_hash"),
            models.Index(fields=["collection", "upload_hash"], name="document_upload"),
            models.Index(fields=["collection", "state", "-id"], name="document_by_state"),
            models.Index(fields=["collection", "-id"], name="document_newest"),
        ]

    def __str__(self) -> str:
        return self.title


class IngestJob(WorkspaceRow):
    """Work on a document that is not done: the truth that a lost broker, a dead worker and a restart leave in place.

    It goes when the document is ready, and stays with one that failed, so that it can be tried again.
    """

    document = models.OneToOneField(Document, models.CASCADE, related_name="job")
    #: What to read: the file's bytes, or a URL to fetch.
    content = models.BinaryField(null=True)
    url = models.TextField(blank=True)
    name = models.CharField(max_length=1000, blank=True)
    content_type = models.CharField(max_length=200, blank=True)
    #: SHA-256 of `content`: the same upload again is the same job.
    upload_hash = models.CharField(max_length=64, blank=True)
    #: What the document gets with the new text; until then it has what it had.
    title = models.CharField(max_length=500, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    #: Grows with each claim and each new upload: who works on an earlier one can't write any more.
    fence = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)
    open = models.BooleanField(default=True)
    owner = models.CharField(max_length=64, blank=True)
    #: Free to be claimed from then on; a claim moves it ahead.
    lease_expires_at = models.DateTimeField()
    #: When a broker was last told; the sweeper tells it again.
    sent_at = models.DateTimeField(null=True)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")

    class Meta:
        indexes = [
            models.Index(fields=["lease_expires_at"], condition=Q(open=True), name="ingestjob_open_by_lease"),
            models.Index(fields=["upload_hash"], condition=Q(open=True), name="ingestjob_open_by_upload"),
        ]

    def __str__(self) -> str:
        return f"ingest of {self.document_id}, attempt {self.attempts}"


class Chunk(WorkspaceRow):
    """A passage of a document: characters `start` to `end` of its text."""

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="chunks")
    document = models.ForeignKey(Document, models.CASCADE, related_name="chunks")
    position = models.PositiveIntegerField()
    text = models.TextField()
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    #: SHA-256 of what was embedded: the title, the headings, the text.
    embedded_hash = models.CharField(max_length=64, blank=True)
    #: The headings that lead to it, its page.
    metadata = models.JSONField(default=dict, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["document", "position"], name="chunk_position_once")]

    def __str__(self) -> str:
        return f"{self.document_id} #{self.position}"


class ChunkLookup(models.Model):
    """What searches look chunks up by, beside their vectors.

    A table of its own: row security on the chunks' texts would keep PostgreSQL from using these indexes.
    """

    chunk = models.OneToOneField(Chunk, models.CASCADE, primary_key=True, related_name="lookup")
    workspace = models.ForeignKey("accounts.Workspace", models.CASCADE, related_name="+")
    collection = models.ForeignKey(Collection, models.CASCADE, related_name="+")
    document = models.ForeignKey(Document, models.CASCADE, related_name="+")
    terms = SearchVectorField()
    #: The document's metadata and the chunk's own, for filters.
    metadata = models.JSONField(default=dict, blank=True)

    class Meta:
        indexes = [
            # Both at once: a common word of a large table is in few passages of a small collection.
            GinIndex(fields=["collection", "terms"], name="chunklookup_words"),
            GinIndex(fields=["metadata"], name="chunklookup_metadata", opclasses=["jsonb_path_ops"]),
        ]

    def __str__(self) -> str:
        return str(self.chunk_id)


class ChunkVector(models.Model):
    """A chunk's vector in a set of backend `pgvector`."""

    vector_set = models.ForeignKey(VectorSet, models.CASCADE, related_name="vectors")
    chunk = models.ForeignKey(Chunk, models.CASCADE, related_name="vectors")
    #: No dimension in the column: it belongs to the set, and sets differ.
    embedding = VectorField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["vector_set", "chunk"], name="chunkvector_once")]

    def __str__(self) -> str:
        return f"{self.chunk_id} in {self.vector_set_id}"


class CachedEmbedding(models.Model):
    """A vector that was paid for, for the same text of the same workspace again."""

    workspace = models.ForeignKey("accounts.Workspace", models.CASCADE, related_name="+")
    embedding_model = models.CharField(max_length=200)
    dimension = models.PositiveIntegerField()
    text_hash = models.CharField(max_length=64)
    embedding = VectorField()
    used_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "text_hash", "embedding_model", "dimension"], name="cachedembedding_once"
            )
        ]
        indexes = [models.Index(fields=["used_at"], name="cachedembedding_used")]

    def __str__(self) -> str:
        return self.text_hash[:12]


class Garbage(Row):
    """Vectors that a backend outside PostgreSQL still holds, though their chunks are gone: to be removed there."""

    backend = models.CharField(max_length=100)
    #: The set as the backend knows it; the row may be gone.
    set_id = models.UUIDField()
    #: Empty: the whole set.
    chunk_ids = ArrayField(models.UUIDField(), default=list)
    lease_expires_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "garbage"
        indexes = [models.Index(fields=["lease_expires_at"], name="garbage_by_lease")]

    def __str__(self) -> str:
        return f"{len(self.chunk_ids)} vectors of {self.set_id}"


class StaleMetadata(Row):
    """A document whose metadata changed after a set outside PostgreSQL took it in: it is to be told there.

    While a set has such rows, no search leaves its filter to the set's store.
    """

    vector_set = models.ForeignKey(VectorSet, models.CASCADE, related_name="stale")
    document = models.ForeignKey(Document, models.CASCADE, related_name="+")
    #: Another one with each change: who has told an earlier state isn't done.
    change = models.UUIDField(default=uuid4)
    lease_expires_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "stale metadata"
        constraints = [models.UniqueConstraint(fields=["vector_set", "document"], name="stalemetadata_once")]
        indexes = [models.Index(fields=["lease_expires_at"], name="stalemetadata_by_lease")]

    def __str__(self) -> str:
        return f"{self.document_id} in {self.vector_set_id}"


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
