"""Commands about messages that exist: edit and regenerate put another one beside them, delete empties them.

Units of database work with the rules, locks and repeats of chat.turns.accept.
"""

from dataclasses import dataclass
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts.access import Caller
from chat import turns
from chat.models import ChatHistory, MessageRole, MessageStatus, Run
from chat.turns import Accepted
from kernel.errors import Conflict, Invalid
from llm import budgets
from memory import exchange


@dataclass(frozen=True, kw_only=True)
class Deleted:
    """A message that says nothing any more. `outdated`: the epoch whose copies may still hold it; None for a repeat."""

    row: ChatHistory
    outdated: int | None = None
    #: How often its answer was begun; 0 for a question.
    attempts: int = 0


def edit(
    caller: Caller, session_id: UUID, message_id: UUID, *, client_id: str, text: str, owner: str, full: bool = False
) -> Accepted:
    """Commit a new question beside `message_id`, and its pending answer; both are the end of the active branch.

    Raises what turns.accept raises, and Invalid for a message that isn't a question.
    """
    text = turns.checked(text)
    with budgets.refusals_told(), transaction.atomic():
        session = turns.locked(caller, session_id)
        old = turns.message_of(session, message_id)
        if old.role != MessageRole.USER:
            raise Invalid("Only a user's message can be edited; an answer can be regenerated.")
        first = turns.known(session, client_id)
        if first is not None:
            return turns.repeat_of(first, text=text, follows=old.parent_id)
        change = turns.change_of(session, "edit", old.id)
        question = turns.new_question(session, client_id, text, old.parent_id)
        return turns.commit(session, question, owner, full=full, change=change)


def regenerate(
    caller: Caller, session_id: UUID, message_id: UUID, *, client_id: str, owner: str, full: bool = False
) -> Accepted:
    """Commit another pending answer to the question of the answer `message_id`; it ends the active branch.

    Raises what turns.accept raises, Invalid for a message that isn't an answer, and Conflict for one that is still
    being written (`still_running`) or whose question was deleted.
    """
    with budgets.refusals_told(), transaction.atomic():
        session = turns.locked(caller, session_id)
        old = turns.message_of(session, message_id)
        if old.role != MessageRole.ASSISTANT or old.parent_id is None:
            raise Invalid("Only an answer can be regenerated; a user's message can be edited.")
        first = turns.known(session, client_id)
        if first is not None:
            if first.role != MessageRole.ASSISTANT or first.parent_id != old.parent_id:
                raise turns.other_command()
            return Accepted(message_id=old.parent_id, answer_id=first.id, seq=first.accepted_seq)
        if old.status == MessageStatus.PENDING:
            raise _still_running()
        question = turns.message_of(session, old.parent_id)
        if question.is_deleted:
            raise Conflict("The question was deleted, so there is nothing to answer; send it anew.")
        change = turns.change_of(session, "regenerate", old.id)
        return turns.commit(session, question, owner, full=full, change=change, client_id=client_id)


def delete(caller: Caller, session_id: UUID, message_id: UUID) -> Deleted:
    """Empty a message: its row stays, so that the branch holds together. A repeat changes nothing.

    Raises NotFound, and Conflict (`still_running`) while the message is answered or an answer under way.
    """
    with transaction.atomic():
        session = turns.locked(caller, session_id)
        row = turns.message_of(session, message_id)
        if row.is_deleted:
            return Deleted(row=row)
        runs = Run.objects.filter(session=session, status=MessageStatus.PENDING)
        if runs.filter(Q(message=row) | Q(question=row)).exists():
            raise _still_running()
        change = turns.change_of(session, "delete", row.id)
        session.seq += 1
        if row.role == MessageRole.USER and session.title == turns.title_of(row.content):
            session.title = ""  # it was taken from the message
        session.save(update_fields=["seq", "memory_epoch", "title", "updated_at"])
        ChatHistory.objects.filter(id=row.id).update(
            content="", sources=[], is_deleted=True, seq=session.seq, updated_at=Now()
        )
        exchange.changed(change)
        attempts = Run.objects.filter(message=row).values_list("attempt", flat=True).first() or 0
        return Deleted(row=ChatHistory.objects.get(id=row.id), outdated=change.epoch - 1, attempts=attempts)


def _still_running() -> Conflict:
    return Conflict("This answer is still being written; stop it first, or wait for its end.", code="still_running")
