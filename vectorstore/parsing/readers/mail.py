"""E-mail: subject, people, date and the text of the message. What came along is named, not read."""

from email import message_from_bytes
from email.errors import MessageError
from email.message import EmailMessage, Message
from email.policy import default
from typing import Any

from vectorstore.parsing.decoding import decoded
from vectorstore.parsing.readers.output import Output, one_line, plain
from vectorstore.parsing.readers.web import page
from vectorstore.parsing.values import Parsed, Unparsable

_HEADERS = ("From", "To", "Cc", "Date")
_LONGEST_HEADER = 1000
_MOST_PARTS = 500
_MOST_ATTACHMENTS = 100
_LONGEST_NAME = 200


def read(data: bytes, *, declared: str, most_chars: int) -> Parsed:
    message = message_from_bytes(data, policy=default)
    if not any(name in message for name in ("From", "To", "Subject", "Date", "Message-ID", "Received")):
        raise Unparsable("parse_failed", "is no e-mail: it begins with no header of one")
    output = Output(most_chars)
    subject = _header(message, "Subject")
    output.heading(1, subject)
    headers = {name: _header(message, name) for name in _HEADERS}
    output.paragraph("\n".join(f"{name}: {value}" for name, value in headers.items() if value))
    attachments: list[str] = []
    texts = [text for part in _parts(message, attachments) if (text := _text(part, most_chars)).strip()]
    for text in texts:
        output.paragraph(text)
    if not texts and not subject:
        raise Unparsable("no_text", "is an e-mail without text")
    metadata: dict[str, Any] = {name.lower(): value for name, value in headers.items() if value}
    return Parsed(
        text=str(output),
        title=subject,
        markdown=True,
        metadata=metadata | {"attachments": attachments[:_MOST_ATTACHMENTS]},
    )


def _header(message: Message, name: str) -> str:
    try:
        return one_line(str(message[name] or ""))[:_LONGEST_HEADER]
    except (MessageError, ValueError, IndexError, AttributeError, TypeError):
        # The library's parser of structured headers stumbles over some that real programs write.
        return ""


def _parts(message: Message, attachments: list[str]) -> list[Message]:
    """The parts that are the message itself, in order; names of all others go to `attachments`."""
    found: list[Message] = []
    waiting: list[Any] = [message]
    seen = 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen > _MOST_PARTS:
            raise Unparsable("too_large", f"is an e-mail of more than {_MOST_PARTS} parts")
        kind = part.get_content_type()
        below = part.get_payload() if part.is_multipart() else None
        if isinstance(below, list) and kind != "message/rfc822":
            waiting += reversed(_chosen(below) if kind == "multipart/alternative" else below)
        elif kind in {"text/plain", "text/html"} and part.get_content_disposition() != "attachment":
            found.append(part)
        else:
            attachments.append(_name(part, below))
    return found


def _chosen(alternatives: list[Any]) -> list[Any]:
    """One of the forms of the same text: the plain one if it says something, else the last, which is the richest."""
    for part in alternatives:
        if part.get_content_type() == "text/plain" and part.get_payload(decode=True).strip():
            return [part]
    return alternatives[-1:]


def _name(part: Message, below: Any) -> str:
    inner = below[0] if isinstance(below, list) and below else None
    name = part.get_filename() or (isinstance(inner, EmailMessage) and _header(inner, "Subject")) or ""
    return one_line(name)[:_LONGEST_NAME] or part.get_content_type()


def _text(part: Message, most_chars: int) -> str:
    payload = part.get_payload(decode=True)
    text = decoded(payload if isinstance(payload, bytes) else b"", declared=str(part.get_param("charset") or ""))
    if part.get_content_type() == "text/html":
        return page(text, Output(most_chars)).text
    return plain(text.replace("\r\n", "\n").replace("\r", "\n"))
