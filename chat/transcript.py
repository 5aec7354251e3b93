"""What a client holds of a conversation, from the frames it has received. Pure state: no socket, no clock."""

from uuid import UUID

from chat import protocol
from chat.protocol import Message


class Gap(Exception):
    """Text is missing in front of a delta; resuming brings it."""


class Transcript:
    """The rows, the text of unfinished answers, and the cursor to resume from."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.seq = 0
        self.messages: dict[UUID, Message] = {}
        self._texts: dict[UUID, str] = {}
        self._ends: dict[UUID, int] = {}

    def hello(self, token: str) -> protocol.Hello:
        """Where we left off."""
        return protocol.Hello(seq=self.seq, streams={key: end for key, end in self._ends.items() if end}, token=token)

    def text_of(self, message_id: UUID) -> str:
        """The text as far as it is known, stored or still streaming."""
        if message_id in self._texts:
            return self._texts[message_id]
        row = self.messages.get(message_id)
        return row.content if row else ""

    def apply(self, event: protocol.Event | None) -> None:
        """Take a frame in. Raises Gap where resuming is the only way on."""
        match event:
            case protocol.MessageEvent():
                self._put(event.message)
            case protocol.Delta():
                self._append(event)
            case protocol.Reset():
                self.clear()

    def _put(self, row: Message) -> None:
        known = self.messages.get(row.id)
        self.seq = max(self.seq, row.seq)
        if known is not None and known.seq >= row.seq:
            return
        self.messages[row.id] = row
        self._texts.pop(row.id, None)
        self._ends.pop(row.id, None)
        if row.status == "pending":  # also a further attempt at an answer: its text begins anew
            self._texts[row.id], self._ends[row.id] = "", 0

    def _append(self, delta: protocol.Delta) -> None:
        held = self._ends.get(delta.message_id)
        if held is None or delta.end <= held:
            return
        if delta.offset > held:
            raise Gap
        self._texts[delta.message_id] += delta.text.encode()[held - delta.offset :].decode()
        self._ends[delta.message_id] = delta.end
