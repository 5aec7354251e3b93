"""Rows of every model that has pages in the admin, with words in them that no page may show."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.contrib.auth import get_user_model
from django.db.models import Model
from django.utils import timezone

from accounts.models import Membership, Workspace
from chat.models import ChatHistory, ChatSession, Run
from llm.models import (
    Activation,
    Budget,
    BudgetCounter,
    CachedAnswer,
    InteractionLog,
    ModelConfig,
    ModelPrice,
    Prompt,
    PromptSplit,
    Reservation,
    Workflow,
)
from memory.models import MemoryJob, ProcessLease, Summary
from vectorstore.models import (
    Collection,
    CollectionMember,
    Document,
    Garbage,
    IngestJob,
    SemanticAnswer,
    StaleMetadata,
    VectorSet,
)

#: What people and models said, and what opens doors.
WORDS = "words-that-are-private"
KEY = "gAAAA-that-is-secret"
SIGNED = "X-Signature=sk-live-0123456789abcdef"


def user() -> Any:
    return get_user_model().objects.create_user(f"u{uuid4().hex[:12]}", password="correct horse")


class Rows:
    """Makes rows in one workspace: `rows.make(Document, 3)`."""

    def __init__(self) -> None:
        self.user = user()
        self.workspace = Workspace.objects.create(name="a team")
        Membership.objects.create(workspace=self.workspace, user=self.user)
        self.workflow = Workflow.objects.create(
            workspace=self.workspace, name="w", workflow_definition=[{"type": "llm"}], created_by=self.user
        )
        self.collection = Collection.objects.create(workspace=self.workspace, name="manuals")
        self.soon = timezone.now() + timedelta(hours=1)

    def make(self, model: type[Model], number: int = 1) -> list[Any]:
        return [_MAKERS[model](self) for _ in range(number)]

    def put(self, model: Any, /, **values: Any) -> Any:
        return model.objects.create(workspace=self.workspace, **values)

    def session(self) -> Any:
        return self.put(ChatSession, user=self.user, title=WORDS, workflow=self.workflow)

    def message(self, session: ChatSession | None = None, order: int = 1) -> Any:
        values = {"content": WORDS, "sources": [{"text": WORDS}], "role": "USER"}
        place = {"order": order, "seq": order, "accepted_seq": order}
        return self.put(ChatHistory, session=session or self.session(), **values, **place)

    def document(self) -> Any:
        source = f"https://example.org/{uuid4()}?{SIGNED}"
        return self.put(
            Document, collection=self.collection, title="A manual", source=source, text=WORDS, metadata={"a": WORDS}
        )

    def vector_set(self) -> Any:
        return self.put(VectorSet, collection=self.collection, embedding_model="m", dimension=3, state="retired")

    def run(self) -> Any:
        session = self.session()
        question, answer = self.message(session), self.message(session, 2)
        lease = {"owner": "host:1:a", "lease_expires_at": self.soon}
        return self.put(Run, session=session, question=question, message=answer, **lease)

    def summary(self) -> Any:
        message = self.message()
        values = {"version": 1, "text": WORDS, "model": "default", "prompt_hash": "0" * 64}
        return self.put(Summary, session=message.session, through=message, through_order=1, **values)

    def call(self) -> Any:
        return self.put(
            InteractionLog,
            user=self.user,
            session=self.session(),
            workflow=self.workflow,
            run_id=uuid4(),
            prompt_text=[{"role": "user", "content": WORDS}],
            response_text=WORDS,
        )

    def reservation(self) -> Any:
        counter = self.put(BudgetCounter, key=str(uuid4()), window=self.soon)
        return self.put(Reservation, counter=counter, run_id=uuid4(), amount=1)


def _answer(rows: Rows, model: Any, **values: Any) -> Any:
    numbers = {"input_tokens": 1, "output_tokens": 1, "expires_at": rows.soon}
    return rows.put(model, workflow=rows.workflow, text=WORDS, **numbers, **values)


_MAKERS: dict[Any, Callable[[Rows], Any]] = {
    Workspace: lambda rows: Workspace.objects.create(name="another team", personal_of=None),
    Membership: lambda rows: rows.put(Membership, user=user()),
    Prompt: lambda rows: rows.put(
        Prompt,
        name=str(uuid4()),
        prompt_template={"langchain_type": "PromptTemplate", "template": "Say {question}."},
        input_variables=["question"],
        created_by=rows.user,
    ),
    Workflow: lambda rows: rows.put(
        Workflow, name=str(uuid4()), workflow_definition=[{"type": "llm"}], created_by=rows.user
    ),
    PromptSplit: lambda rows: rows.put(PromptSplit, name=str(uuid4()), shares={"1": 100}),
    Activation: lambda rows: rows.put(
        Activation, kind="prompt", name="p", version=1, action="activated", user=rows.user
    ),
    ModelConfig: lambda rows: rows.put(
        ModelConfig, alias=uuid4().hex, provider="openai", model_name="m", encrypted_key=KEY, updated_by=rows.user
    ),
    ModelPrice: lambda rows: ModelPrice.objects.create(
        model_name=uuid4().hex, input_price=1, output_price=2, valid_from=timezone.now()
    ),
    Budget: lambda rows: rows.put(Budget, kind="tokens_per_day", limit=100, user=rows.user),
    BudgetCounter: lambda rows: rows.put(BudgetCounter, key=str(uuid4()), window=rows.soon),
    Reservation: Rows.reservation,
    InteractionLog: Rows.call,
    CachedAnswer: lambda rows: _answer(rows, CachedAnswer, key=uuid4().hex),
    ChatSession: Rows.session,
    ChatHistory: Rows.message,
    Run: Rows.run,
    Summary: Rows.summary,
    MemoryJob: lambda rows: rows.put(MemoryJob, session=rows.session(), lease_expires_at=rows.soon),
    ProcessLease: lambda rows: ProcessLease.objects.create(
        name=str(uuid4()), host="h", pid=1, token=KEY, expires_at=rows.soon
    ),
    Collection: lambda rows: rows.put(Collection, name=str(uuid4())),
    CollectionMember: lambda rows: CollectionMember.objects.create(collection=rows.collection, user=user()),
    VectorSet: Rows.vector_set,
    Document: Rows.document,
    IngestJob: lambda rows: rows.put(
        IngestJob,
        document=rows.document(),
        content=WORDS.encode(),
        url=f"https://example.org/?{SIGNED}",
        metadata={"a": WORDS},
        lease_expires_at=rows.soon,
        requested_by=rows.user,
    ),
    Garbage: lambda rows: Garbage.objects.create(
        backend="chroma", set_id=uuid4(), chunk_ids=[uuid4()], lease_expires_at=rows.soon
    ),
    StaleMetadata: lambda rows: StaleMetadata.objects.create(
        vector_set=rows.vector_set(), document=rows.document(), lease_expires_at=rows.soon
    ),
    SemanticAnswer: lambda rows: _answer(
        rows, SemanticAnswer, scope=uuid4().hex, question_hash=uuid4().hex, embedding=[0.123456789, 0.0]
    ),
}

MODELS = list(_MAKERS)
