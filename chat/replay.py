"""What changed since N: the rows behind `hello`, behind a repair and behind the history pages.

Units of database work.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import F, Func, IntegerField, QuerySet

from accounts import access
from accounts.access import Caller
from chat.models import ChatHistory, ChatSession, MessageStatus, Run
from chat.sessions import find_session
from kernel.conf import config
from kernel.errors import NotAuthenticated, NotFound, Refused

#: Text that is read at once for one socket: a client that doesn't read holds no more than that of our memory.
PIECE_BYTES = 262_144


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What a socket may show: a session cookie (from an allowed origin only), or a token from `hello`."""

    session_key: str = ""
    token: str = ""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """An unfinished answer: the attempt under way, and the seq of its row."""

    message_id: UUID
    attempt: int
    row_seq: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A row that is to be sent: as it was stamped when it was listed, and the bytes of its text."""

    id: UUID
    seq: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Changes:
    """A page of changed rows, oldest change first: the first ones whole, the rest to be read by `piece`.

    `seq` is the session's own, read before the rows.
    """

    seq: int
    rows: list[ChatHistory]
    rest: list[Listed]
    more: bool
    pending: list[Pending]


def identify(credentials: Credentials) -> Caller:
    """The caller behind the credentials; a token wins over a cookie. Raises NotAuthenticated."""
    if credentials.token:
        return access.from_token(credentials.token)
    if credentials.session_key:
        return access.from_session_key(credentials.session_key)
    raise NotAuthenticated


def enter(credentials: Credentials, session_id: UUID) -> tuple[Caller, ChatSession]:
    """The caller and the caller's session. Raises NotAuthenticated, NotFound."""
    caller = identify(credentials)
    return caller, find_session(caller, session_id)


def objections(asked: Iterable[tuple[Credentials, UUID | None]]) -> list[Refused | None]:
    """For each credentials and session (None: a socket without one): why the caller may be here no longer, if so.

    Signed out or deactivated: NotAuthenticated; membership or session gone: NotFound.
    """
    found: list[Refused | None] = []
    for credentials, session_id in asked:
        try:
            if session_id is None:
                identify(credentials)
            else:
                enter(credentials, session_id)
        except (NotAuthenticated, NotFound) as error:
            found.append(error)
        else:
            found.append(None)
    return found


def since(session_id: UUID, seq: int) -> Changes:
    """Rows changed after `seq`, a page of them, and the unfinished answers."""
    page = config().chat.page_rows
    session_seq = ChatSession.objects.values_list("seq", flat=True).get(id=session_id)
    listed = _listed(ChatHistory.objects.filter(session_id=session_id, seq__gt=seq).order_by("seq")[: page + 1])
    rows, rest = piece(listed[:page])
    return Changes(seq=session_seq, rows=rows, rest=rest, more=len(listed) > page, pending=_pending(session_id))


def first_page(session_id: UUID) -> Changes:
    """The newest messages, as a client sees them that holds nothing."""
    page = config().chat.page_rows
    session_seq = ChatSession.objects.values_list("seq", flat=True).get(id=session_id)
    listed = _listed(ChatHistory.objects.filter(session_id=session_id).order_by("-order")[:page])
    rows, rest = piece(sorted(listed, key=lambda one: one.seq))
    return Changes(seq=session_seq, rows=rows, rest=rest, more=False, pending=_pending(session_id))


def piece(listed: Sequence[Listed]) -> tuple[list[ChatHistory], list[Listed]]:
    """The first of these rows, as many as fit into memory for one socket, and those left over.

    A row that was stamped anew meanwhile is left out: it is a later change now.
    """
    taken, size = 0, 0
    for one in listed:
        size += one.size
        if taken and size > PIECE_BYTES:
            break
        taken += 1
    seqs = {one.id: one.seq for one in listed[:taken]}
    rows = [row for row in ChatHistory.objects.filter(id__in=seqs).order_by("seq") if row.seq == seqs[row.id]]
    return rows, list(listed[taken:])


def _listed(rows: QuerySet[ChatHistory]) -> list[Listed]:
    size = Func(F("content"), function="octet_length", output_field=IntegerField())
    return [Listed(*values) for values in rows.values_list("id", "seq", size)]


def _pending(session_id: UUID) -> list[Pending]:
    runs = Run.objects.filter(session_id=session_id, status=MessageStatus.PENDING).order_by("id")
    return [
        Pending(message_id=message_id, attempt=attempt, row_seq=row_seq)
        for message_id, attempt, row_seq in runs.values_list("message_id", "attempt", "message__seq")
    ]


def session_seqs(session_ids: Iterable[UUID]) -> dict[UUID, int]:
    """The last durable event of each session."""
    return dict(ChatSession.objects.filter(id__in=list(session_ids)).values_list("id", "seq"))


def history(caller: Caller, session_id: UUID, *, before: int | None, limit: int) -> tuple[list[ChatHistory], bool]:
    """A page of messages before place `before`, oldest first, and whether there are more. Raises NotFound."""
    session = find_session(caller, session_id)
    rows = ChatHistory.objects.filter(session=session)
    if before is not None:
        rows = rows.filter(order__lt=before)
    page = list(rows.order_by("-order")[: limit + 1])
    return page[:limit][::-1], len(page) > limit
