"""The durable half of a turn: accept a message, renew and take over its run, finish it.

Each function here is one unit of database work (`kernel.database.run`), at most one transaction. Lock order: the
session's row, its runs, the first log row of a run, the workspace's row (for its budgets). Nothing here knows sockets,
models or Redis.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from accounts.access import Caller
from chat import sessions
from chat.models import ChatHistory, ChatSession, MessageRole, MessageStatus, Run
from kernel.conf import config
from kernel.errors import Busy, Conflict, DatabaseUnavailable, Invalid, NotFound, TooLarge
from kernel.text import storable
from llm import budgets, configuration, ledger, usage
from llm import generation as generations
from llm.journal import Ending, RunRef
from memory import exchange
from memory import jobs as memory_jobs
from memory.exchange import Change, Kind
from memory.jobs import Needs
from memory.truth import place_of


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a process needs to answer a message; `attempt` fences everything it writes."""

    run_id: UUID
    workspace_id: UUID
    session_id: UUID
    user_id: int
    workflow_id: UUID | None
    workflow_pinned: bool = False
    question: str
    question_id: UUID
    question_order: int
    answer_id: UUID
    answer_order: int
    #: The message that the question follows: what is remembered ends with it.
    leaf: UUID | None = None
    #: The session's `memory_epoch` when the run was committed, or when its turn came.
    epoch: int = 0
    #: When that was its epoch, by this process's time.monotonic.
    as_of: float = field(default_factory=monotonic)
    attempt: int = 1
    #: The number of the log row that was opened with this attempt.
    first_call: int = 0
    #: The workspace's configuration when the run was committed; None: ask.
    generation: int | None = None
    #: A budget holds something back until the run's end, or may do so.
    holds: bool = True

    @property
    def ref(self) -> RunRef:
        """For the interaction log."""
        return RunRef(
            run_id=self.run_id,
            workspace_id=self.workspace_id,
            user_id=self.user_id,
            session_id=self.session_id,
            workflow_id=self.workflow_id,
            attempt=self.attempt,
            first_call=self.first_call,
            holds=self.holds,
        )


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A committed message. `turn` is None for a repeat, whose run is on its way already."""

    message_id: UUID
    answer_id: UUID
    seq: int
    turn: Turn | None = None
    rows: Sequence[ChatHistory] = ()
    #: Unfinished turns of the session before this one.
    place: int = 0
    #: It changed the past: what was copied of the conversation in this epoch is out of date.
    outdated: int | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended, with everything that its rows keep."""

    status: MessageStatus
    text: str
    log: Ending
    error_code: str = ""
    sources: list[dict[str, Any]] = field(default_factory=list)

    @property
    def output_tokens(self) -> int:
        """What all its calls said."""
        return self.log.output_tokens


class LeaseLost(Exception):
    """Another process has taken this run over, or it has ended: this attempt may not write."""


class SessionGone(LeaseLost):
    """The session was deleted meanwhile, and its runs with it."""


def accept(
    caller: Caller,
    session_id: UUID,
    *,
    client_id: str,
    text: str,
    owner: str,
    full: bool = False,
    parent: UUID | None = None,
) -> Accepted:
    """Commit a message, its pending answer, the run with its lease, and the open log row: one transaction.

    It follows the session's newest message, or the answer `parent`, whose branch is the active one from then on.
    A repeat (same session, same `client_id`, same text) returns the first one's ids; `full`: this process can't run
    another answer, so only repeats are served. Raises NotFound, Conflict (`id_conflict`), Invalid, TooLarge, Busy,
    BudgetExceeded.
    """
    text = checked(text)
    with budgets.refusals_told(), transaction.atomic():
        session = locked(caller, session_id)
        first = known(session, client_id)
        if first is not None:
            return repeat_of(first, text=text, follows=parent or first.parent_id)
        change: Change | None = None
        if parent is not None and parent != session.head_id:
            if message_of(session, parent).role != MessageRole.ASSISTANT:
                raise Invalid("A message follows an answer: `parent` is not the id of one.")
            change = change_of(session, "branch", parent)
        return commit(
            session, new_question(session, client_id, text, parent or session.head_id), owner, full=full, change=change
        )


def locked(caller: Caller, session_id: UUID) -> ChatSession:
    """The session, for a change of it. Raises NotFound for one that the caller can't write in."""
    session: ChatSession | None = (
        ChatSession.objects.writable_by(caller)
        .filter(id=session_id)
        .annotate(generation=generations.beside("workspace_id"))
        .select_for_update(of=("self",))
        .first()
    )
    if session is None:
        raise NotFound("There is no such session among those you may write in.")
    return session


def message_of(session: ChatSession, message_id: UUID) -> ChatHistory:
    """A message of the session. Raises NotFound."""
    row: ChatHistory | None = ChatHistory.objects.filter(session=session, id=message_id).first()
    if row is None:
        raise NotFound("There is no such message in this session.")
    return row


def change_of(session: ChatSession, kind: Kind, *message_ids: UUID) -> Change:
    """A change of the session's past: its epoch advances with it."""
    session.memory_epoch += 1
    return Change(session_id=session.id, kind=kind, message_ids=message_ids, epoch=session.memory_epoch)


def commit(
    session: ChatSession, question: ChatHistory, owner: str, *, full: bool, change: Change | None, client_id: str = ""
) -> Accepted:
    """The rows of an answer to `question`, which is written too if it is new, else answered once more.

    `client_id`: the sender's id for an answer to a question that exists. Raises Busy, BudgetExceeded.
    """
    if full:
        raise Busy("The server runs as many answers as it can; try again shortly.", retry_after=2)
    place = Run.objects.filter(session_id=session.id, status=MessageStatus.PENDING).count()
    if place >= config().chat.max_turns_per_session:
        raise Busy("This session has too many unanswered messages; wait for an answer.", retry_after=2)
    answer = _new_answer(session, question, client_id)
    rows = (answer,) if client_id else (question, answer)
    run = Run(
        workspace_id=session.workspace_id,
        session_id=session.id,
        question=question,
        message=answer,
        owner=owner,
        lease_expires_at=_lease_end(),
    )
    session.title = session.title or title_of(question.content)
    ChatHistory.objects.bulk_create(rows)
    run.save(force_insert=True)
    turn = _turn(run, session, question, generation=session.generation or 0)
    ledger.open_run(turn.ref, in_chat=True)
    session.save(update_fields=["seq", "last_order", "head_id", "memory_epoch", "title", "updated_at"])
    if change is not None:
        exchange.changed(change)
    # Last: the workspace's counters are ours alone until the commit.
    holding = configuration.at(session.workspace_id, session.generation or 0)
    turn = replace(turn, holds=budgets.begin_run(holding, turn.ref))
    return Accepted(
        message_id=question.id,
        answer_id=answer.id,
        seq=answer.seq,
        turn=turn,
        rows=rows,
        place=place,
        outdated=None if change is None else change.epoch - 1,
    )


def checked(text: str) -> str:
    """A message's text as it can be stored. Raises TooLarge, and Invalid (`empty_text`)."""
    limit = config().chat.max_text_chars
    if len(text) > limit:
        raise TooLarge(f"A message may have {limit} characters; this one has {len(text)}.")
    text = storable(text)
    if not text.strip():
        raise Invalid("A message needs some text.", code="empty_text")
    return text


def known(session: ChatSession, client_id: str) -> ChatHistory | None:
    """What was committed under this id of the sender's."""
    first: ChatHistory | None = ChatHistory.objects.filter(session=session, client_id=client_id).first()
    return first


def repeat_of(first: ChatHistory, *, text: str, follows: UUID | None) -> Accepted:
    """What the first command with this id got, which made the question `first`. Raises Conflict for another command."""
    same_text = first.is_deleted or first.content == text
    if first.role != MessageRole.USER or not same_text or first.parent_id != follows:
        raise other_command()
    answer = Run.objects.filter(question=first).select_related("message").order_by("message__order").first()
    if answer is None:
        raise NotFound("That message has no answer any more.")
    # The ack of a repeat is the first one's: the seq of the answer's own acceptance, not of what came after.
    return Accepted(message_id=first.id, answer_id=answer.message_id, seq=first.accepted_seq + 1)


def other_command() -> Conflict:
    return Conflict("This id was used before with another text; choose a new id for a new message.", code="id_conflict")


def new_question(session: ChatSession, client_id: str, text: str, follows: UUID | None) -> ChatHistory:
    """The next row of the session: a question, not saved yet."""
    return _placed(session, role=MessageRole.USER, content=text, parent_id=follows, client_id=client_id)


def _new_answer(session: ChatSession, question: ChatHistory, client_id: str) -> ChatHistory:
    answer = _placed(
        session,
        role=MessageRole.ASSISTANT,
        status=MessageStatus.PENDING,
        parent_id=question.id,
        client_id=client_id or None,
    )
    session.head_id = answer.id
    return answer


def _placed(session: ChatSession, **values: Any) -> ChatHistory:
    session.seq += 1
    session.last_order += 1
    return ChatHistory(
        workspace_id=session.workspace_id,
        session=session,
        order=session.last_order,
        seq=session.seq,
        accepted_seq=session.seq,
        **values,
    )


def title_of(text: str) -> str:
    """What a session is called after its first message."""
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"


def _lease_end() -> Any:
    """The end of a lease that starts now, by the database's clock: processes' clocks may differ."""
    return Now() + timedelta(seconds=config().chat.lease_seconds)


def _turn(run: Run, session: ChatSession, question: ChatHistory, *, generation: int | None = None) -> Turn:
    return Turn(
        run_id=run.id,
        workspace_id=session.workspace_id,
        session_id=session.id,
        user_id=session.user_id,
        workflow_id=session.workflow_id,
        workflow_pinned=session.workflow_pinned,
        question=question.content,
        question_id=question.id,
        question_order=question.order,
        answer_id=run.message_id,
        answer_order=run.message.order,
        leaf=question.parent_id,
        epoch=session.memory_epoch,
        attempt=run.attempt,
        generation=generation,
    )


def earlier_turns(turn: Turn) -> int:
    """How many unfinished turns of the session come before this one."""
    return Run.objects.filter(
        session_id=turn.session_id, status=MessageStatus.PENDING, message__order__lt=turn.answer_order
    ).count()


def in_its_turn(turn: Turn) -> Turn:
    """The turn as its time comes: what was deleted while it waited is not remembered."""
    place = place_of(turn.session_id)
    return replace(turn, epoch=place.epoch, as_of=place.as_of)


@dataclass(frozen=True, kw_only=True)
class Held:
    """A run whose lease this process holds."""

    answer_id: UUID
    attempt: int
    stop_requested: bool


def renew(owner: str, answer_ids: Sequence[UUID]) -> list[Held]:
    """Extend `owner`'s leases of these answers and say which it still holds.

    Only what the process really works on is named: a run that was committed but never begun must run out.
    """
    with transaction.atomic():
        mine = Run.objects.filter(owner=owner, message_id__in=answer_ids, status=MessageStatus.PENDING)
        mine.update(lease_expires_at=_lease_end())
        return [
            Held(answer_id=answer_id, attempt=attempt, stop_requested=stop)
            for answer_id, attempt, stop in mine.values_list("message_id", "attempt", "stop_requested")
        ]


@dataclass(frozen=True, kw_only=True)
class TakenOver:
    turn: Turn
    stop_requested: bool


def take_over(owner: str, *, limit: int, before: float) -> list[TakenOver]:
    """Claim runs whose lease ran out; each gets a new attempt number, so that its old owner's writes lose.

    Raises DatabaseUnavailable if the database answers only after `before`, by time.monotonic: while it was away the
    owners could not renew, so whose lease really ran out is not known.
    """
    as_of = monotonic()
    with transaction.atomic():
        runs = list(
            Run.objects.filter(status=MessageStatus.PENDING, lease_expires_at__lt=Now())
            .select_for_update(skip_locked=True, of=("self",))
            .select_related("session", "question", "message")
            .order_by("lease_expires_at")[:limit]
        )
        if monotonic() > before:
            raise DatabaseUnavailable
        for run in runs:
            run.attempt += 1
            Run.objects.filter(id=run.id).update(owner=owner, attempt=run.attempt, lease_expires_at=_lease_end())
    taken = [replace(_turn(run, run.session, run.question), as_of=as_of) for run in runs]
    return [TakenOver(turn=turn, stop_requested=run.stop_requested) for turn, run in zip(taken, runs, strict=True)]


def restart(turn: Turn) -> tuple[ChatHistory, Turn]:
    """Stamp the answer's row anew for a further attempt: cursors into an earlier attempt's text no longer fit.

    The attempt has a log row of its own: the provider may have been asked before its predecessor died.
    """
    with transaction.atomic():
        seq = _next_seq(turn)
        if not Run.objects.filter(id=turn.run_id, attempt=turn.attempt, status=MessageStatus.PENDING).exists():
            raise LeaseLost
        ChatHistory.objects.filter(id=turn.answer_id).update(seq=seq, updated_at=Now())
        asked = usage.estimate([{"content": turn.question}], 0)
        again = replace(turn, first_call=ledger.reopen_run(turn.ref, asked=asked).first_call)
        return ChatHistory.objects.get(id=turn.answer_id), again


def release(owner: str) -> None:
    """Give up all leases at once, so that another process need not wait for them to run out."""
    Run.objects.filter(owner=owner, status=MessageStatus.PENDING).update(lease_expires_at=Now() - timedelta(seconds=1))


def finish(turn: Turn, outcome: Outcome, needs: Needs | None = None) -> ChatHistory:
    """Write the end of a run: its answer, its status, its log row. Raises LeaseLost when fenced off.

    `needs`: what a worker has to make of the conversation then.
    """
    try:
        return _finish(turn, outcome, needs)
    except SessionGone:
        # Its log stays, and its budgets count on.
        with transaction.atomic():
            ledger.close_run(outcome.log)
        raise


def _finish(turn: Turn, outcome: Outcome, needs: Needs | None) -> ChatHistory:
    with transaction.atomic():
        seq = _next_seq(turn)
        ended = Run.objects.filter(id=turn.run_id, attempt=turn.attempt, status=MessageStatus.PENDING).update(
            status=outcome.status, finished_at=Now(), updated_at=Now()
        )
        if not ended:
            raise LeaseLost
        ChatHistory.objects.filter(id=turn.answer_id).update(
            content=outcome.text,
            status=outcome.status,
            error_code=outcome.error_code,
            sources=outcome.sources,
            token_count=outcome.output_tokens,
            seq=seq,
            updated_at=Now(),
        )
        if needs:
            memory_jobs.want(turn.session_id, turn.workspace_id, needs)
        ledger.close_run(outcome.log)
        return ChatHistory.objects.get(id=turn.answer_id)


def _next_seq(turn: Turn) -> int:
    session: ChatSession | None = ChatSession.objects.select_for_update().only("seq").filter(id=turn.session_id).first()
    if session is None:
        raise SessionGone
    session.seq += 1
    session.save(update_fields=["seq", "updated_at"])
    return session.seq


def request_stop(caller: Caller, session_id: UUID, answer_id: UUID) -> None:
    """Mark an answer as to be stopped; harmless when it has ended. Raises NotFound for what isn't the caller's."""
    session = sessions.find_session(caller, session_id)
    stopped = Run.objects.filter(session=session, message_id=answer_id).update(stop_requested=True)
    if not stopped:
        raise NotFound("There is no such answer in this session.")
