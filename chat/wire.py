"""What processes tell each other over Redis, and what the hub hands to sockets.

A live event is encoded once, as the text frame that clients get, behind a small binary header that lets other processes
route and order it without reading JSON.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from chat import protocol
from chat.models import ChatHistory


class Kind(IntEnum):
    ROW = 1
    TEXT = 2
    #: Steps, sources: shown live, and again to those who join in the middle of an answer.
    EXTRA = 3


@dataclass(frozen=True, slots=True)
class Live:
    """One event on its way to a session's sockets.

    ROW: `end` is the row's seq, `offset` is 1 while the answer is pending. TEXT: bytes `offset` to `end` of the
    attempt.
    """

    kind: Kind
    message_id: UUID
    attempt: int
    offset: int
    end: int
    frame: str


#: kind, message id, attempt, offset, end; after the sender's 8 bytes.
_HEADER = struct.Struct("!B16sHQQ")
SENDER_BYTES = 8


def pack(sender: bytes, live: Live) -> bytes:
    """The bytes that are published for `live` by the process `sender` (8 bytes)."""
    header = _HEADER.pack(live.kind, live.message_id.bytes, live.attempt, live.offset, live.end)
    return sender + header + live.frame.encode()


def unpack(payload: bytes) -> Live:
    """The opposite of `pack`, without the sender. Raises ValueError for anything else."""
    try:
        kind, message_id, attempt, offset, end = _HEADER.unpack_from(payload, SENDER_BYTES)
    except struct.error as error:
        raise ValueError("not a live event") from error
    frame = payload[SENDER_BYTES + _HEADER.size :].decode()
    return Live(Kind(kind), UUID(bytes=message_id), attempt, offset, end, frame)


def text_of(message_id: UUID, attempt: int, offset: int, data: bytes) -> Live:
    """A delta: `data` is whole code points, at `offset` of the answer's text."""
    end = offset + len(data)
    delta = protocol.Delta(message_id=message_id, offset=offset, end=end, text=data.decode())
    return Live(Kind.TEXT, message_id, attempt, offset, end, protocol.encode(delta))


def row_of(row: ChatHistory, attempt: int = 0) -> Live:
    """A row's durable state; `attempt` is the one that fills a pending answer, where it is known."""
    frame = protocol.encode(protocol.MessageEvent(seq=row.seq, message=message_of(row)))
    return Live(Kind.ROW, row.id, attempt, int(row.status == "pending"), row.seq, frame)


def extra_of(message_id: UUID, attempt: int, event: protocol.Step | protocol.Sources) -> Live:
    return Live(Kind.EXTRA, message_id, attempt, 0, 0, protocol.encode(event))


def message_of(row: ChatHistory) -> protocol.Message:
    """The row as clients see it; a deleted one without its text."""
    return protocol.Message(
        id=row.id,
        role=row.role,
        content="" if row.is_deleted else row.content,
        status=row.status,
        order=row.order,
        seq=row.seq,
        parent=row.parent_id,
        client_id=row.client_id,
        error_code=row.error_code,
        sources=[] if row.is_deleted else row.sources,
        created_at=row.created_at.isoformat(),
        updated_at=row.updated_at.isoformat(),
        deleted=row.is_deleted,
    )
