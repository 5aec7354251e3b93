"""Files as documents: text and Markdown now. What can't be indexed says which file it is and why."""

import codecs
import stat
from pathlib import Path

from kernel.errors import TooLarge
from kernel.text import storable
from vectorstore.errors import NotText, Unreadable
from vectorstore.values import SourceDocument

_MARKDOWN = {".md", ".markdown", ".mdown"}
_MAGIC = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\x1f\x8b": "compressed",
    b"\x7fELF": "a program",
}
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
#: Bytes looked at to tell a text from something else, and the share of control characters that a text may have there.
_SAMPLE = 8192
_MOST_CONTROL = 0.1


def read(path: Path, *, source: str, max_bytes: int) -> SourceDocument:
    """The file as a document. Raises Unreadable, NotText or TooLarge."""
    data = _bytes(path, source, max_bytes)
    text = _decoded(data, source).replace("\r\n", "\n").replace("\r", "\n")
    markdown = path.suffix.lower() in _MARKDOWN
    return SourceDocument(
        source=storable(source), text=storable(text), title="" if markdown else storable(path.stem), markdown=markdown
    )


def _bytes(path: Path, source: str, max_bytes: int) -> bytes:
    try:
        # Asked first: opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unreadable(f"{source} is not a regular file.")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise Unreadable(f"{source} can't be read: {error.strerror or 'unknown error'}.") from error
    if len(data) > max_bytes:
        raise TooLarge(f"{source} has more than {max_bytes} bytes; raise VECTOR_STORE['MAX_DOCUMENT_BYTES'] or cut it.")
    return data


def _decoded(data: bytes, source: str) -> str:
    kind = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
    if kind:
        raise NotText(f"{source} is {kind}; only text and Markdown can be indexed.")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\x00" in data[:_SAMPLE]:
            raise NotText(f"{source} is a binary file; only text and Markdown can be indexed.") from error
        raise Unreadable(
            f"{source} is not UTF-8 text (byte 0x{data[error.start]:02X} at position {error.start});"
            " save it as UTF-8 and try again."
        ) from error
    sample = text[:_SAMPLE]
    control = sum(1 for character in sample if character < " " and character not in "\t\n\r\f")
    if control > _MOST_CONTROL * len(sample):
        raise NotText(f"{source} is a binary file; only text and Markdown can be indexed.")
    return text
