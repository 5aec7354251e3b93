"""How a conversation looks as lines of text: answers as they stream, their sources, nothing ever repainted."""

import re
from uuid import UUID

from django.core.management.base import OutputWrapper

from chat import protocol
from chat.protocol import Message
from chat.transcript import Transcript

# Models and other people write these texts: on a terminal, a control character could retitle it or fill its clipboard.
# Direction overrides could show one address and hold another.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_BETWEEN = " \N{EN DASH} "
_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"


class Paper:
    """Where the text goes. What isn't the conversation itself goes to `err`."""

    def __init__(self, out: OutputWrapper, err: OutputWrapper, *, styled: bool) -> None:
        self._out = out
        self._err = err
        self._styled = styled
        self._terminal = bool(out.isatty())
        self._mid_line = False

    def write(self, text: str) -> None:
        """Text that somebody wrote, as it is."""
        if text:
            self._put(clean(text) if self._terminal else text)

    def line(self, text: str, style: str = "") -> None:
        """A line of ours, on a line of its own."""
        self.end_line()
        self._put(f"{style}{clean(text)}{_PLAIN}\n" if style and self._styled else f"{clean(text)}\n")

    def end_line(self) -> None:
        if self._mid_line:
            self._put("\n")

    def raw(self, frame: str) -> None:
        self._put(frame + "\n")

    def note(self, text: str) -> None:
        """A remark about the connection or the outcome."""
        if self._mid_line and self._terminal and self._err.isatty():
            text = "\n" + text
        self._err.write(clean(text), style_func=str)
        self._err.flush()

    def _put(self, text: str) -> None:
        self._out.write(text, ending="")
        self._out.flush()
        self._mid_line = not text.endswith("\n")


class AnswerView:
    """One answer on paper: what was printed stays, so only what is new is ever added."""

    def __init__(self, paper: Paper) -> None:
        self._paper = paper
        self._printed = ""

    def show(self, text: str) -> None:
        """The whole text as far as it is known. Shorter than before: a replay that will catch up."""
        if text.startswith(self._printed):
            self._paper.write(text[len(self._printed) :])
            self._printed = text
        elif not self._printed.startswith(text):
            self._paper.end_line()
            self._paper.note("The answer was begun anew:")
            self._paper.write(text)
            self._printed = text

    def finish(self, row: Message) -> None:
        """The rest of the text and the sources."""
        self.show(row.content)
        self._paper.end_line()
        if row.sources and row.content:
            self._paper.line("")
            for place, hit in enumerate(row.sources, 1):
                self._paper.line(source_line(hit, place), _DIM)


class FollowView:
    """A whole conversation. Answers that stream at the same time are printed one after the other, in their order."""

    def __init__(self, paper: Paper) -> None:
        self._paper = paper
        self._told: set[UUID] = set()
        self._answer: tuple[UUID, AnswerView] | None = None

    def show(self, transcript: Transcript) -> None:
        """Print what is new."""
        rows = (row for key, row in transcript.messages.items() if key not in self._told)
        for row in sorted(rows, key=lambda row: row.order):
            if not self._show(row, transcript):
                return

    def _show(self, row: Message, transcript: Transcript) -> bool:
        """Whether the row is told to its end, so that the next may begin."""
        if row.role == "ASSISTANT" and not row.deleted:
            if not self._show_answer(row, transcript):
                return False
        elif not row.deleted:
            self._paper.line("")
            self._paper.line(f"> {row.content}", _BOLD)
        self._answer = None
        self._told.add(row.id)
        return True

    def _show_answer(self, row: Message, transcript: Transcript) -> bool:
        if self._answer is None or self._answer[0] != row.id:
            self._answer = (row.id, AnswerView(self._paper))
        view = self._answer[1]
        if row.status == "pending":
            view.show(transcript.text_of(row.id))
            return False
        view.finish(row)
        if row.status != "complete":
            self._paper.line(f"({outcome_of(row)})", _DIM)
        return True


def clean(text: str) -> str:
    """Text that may go to a terminal: without control characters but tabs and line ends."""
    return _CONTROLS.sub("", text)


def source_line(hit: dict[str, object], place: int) -> str:
    """A passage that was used: its mark, title and source."""
    named = [str(hit[key]) for key in ("title", "source") if hit.get(key)]
    return f"[{hit.get('n', place)}] {_BETWEEN.join(dict.fromkeys(named)) or 'unnamed'}"


def outcome_of(row: Message) -> str:
    """How an answer ended that isn't complete, with its code."""
    if row.deleted:
        return "deleted: The answer was deleted."
    told = {
        "stopped": "stopped: The answer was stopped; what had come is kept.",
        "interrupted": "interrupted: The server that wrote this answer went away; what had come is kept.",
    }
    if row.status in told and not row.error_code:
        return told[row.status]
    code = row.error_code or row.status
    return f"{code}: {protocol.ERROR_CODES.get(code, 'The answer failed.')}"
