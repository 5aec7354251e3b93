"""What a file is. Its contents decide, then what was declared, then its name; a contradiction is refused.

Only looks for marks: nothing is unpacked or parsed here, so it costs next to nothing and may run in the server.
"""

import codecs
import re
from enum import StrEnum
from pathlib import PurePath

from vectorstore.parsing.values import Unparsable


class Kind(StrEnum):
    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    EMAIL = "email"


#: How refusals name what can be indexed.
READABLE = "text, Markdown, HTML, PDF, DOCX, CSV, JSON and e-mail"
EXTENSIONS = {
    **dict.fromkeys((".txt", ".text", ".log"), Kind.TEXT),
    **dict.fromkeys((".md", ".markdown", ".mdown"), Kind.MARKDOWN),
    **dict.fromkeys((".html", ".htm", ".xhtml"), Kind.HTML),
    ".pdf": Kind.PDF,
    ".docx": Kind.DOCX,
    **dict.fromkeys((".csv", ".tsv"), Kind.CSV),
    ".json": Kind.JSON,
    **dict.fromkeys((".jsonl", ".ndjson"), Kind.JSONL),
    ".eml": Kind.EMAIL,
}
MEDIA_TYPES = {
    "text/plain": Kind.TEXT,
    **dict.fromkeys(("text/markdown", "text/x-markdown"), Kind.MARKDOWN),
    **dict.fromkeys(("text/html", "application/xhtml+xml"), Kind.HTML),
    **dict.fromkeys(("application/pdf", "application/x-pdf"), Kind.PDF),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": Kind.DOCX,
    **dict.fromkeys(("text/csv", "text/tab-separated-values"), Kind.CSV),
    **dict.fromkeys(("application/json", "text/json"), Kind.JSON),
    **dict.fromkeys(("application/jsonl", "application/x-ndjson", "application/x-jsonlines"), Kind.JSONL),
    "message/rfc822": Kind.EMAIL,
}
#: Read by a format of their own: without its mark at the beginning a file isn't one, whatever its name says.
_MARKED = {Kind.PDF: "a PDF", Kind.DOCX: "a Word document (DOCX)"}
#: Those that no text begins with; the rest is found out by its control characters.
_NO_TEXT = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\x00\x00\x01\x00": "an icon",
    b"\x1f\x8b": "compressed",
    b"\xfd7zXZ\x00": "compressed",
    b"\x28\xb5\x2f\xfd": "compressed",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x7fELF": "a program",
    b"MZ\x90": "a program",
    b"\xca\xfe\xba\xbe": "a program",
    b"\xcf\xfa\xed\xfe": "a program",
    b"\x00asm": "a program",
    b"SQLite format 3\x00": "a database",
}
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
#: In the order asked; the names stand uncompressed in an archive.
_OFFICE = {
    b"xl/workbook": "an Excel workbook",
    b"ppt/presentation": "a PowerPoint presentation",
    b"application/vnd.oasis.opendocument": "an OpenDocument file",
    b"application/epub+zip": "an EPUB book",
}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HTML = re.compile(r"\s*(<\?xml[^>]*>\s*)?(<!--[^>]*-->\s*)*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_PDF_MARK = b"%PDF-"
#: A PDF may begin with so many bytes of something else; readers look for its mark there.
_PDF_LEAD = 1024


def kind_of(data: bytes, *, name: str, content_type: str = "") -> Kind:
    """The kind of a file. Raises Unparsable: `not_text`, `unsupported_type` or `encrypted`."""
    claimed = claimed_kind(name, content_type)
    marked = _marked(data, lead=_PDF_LEAD if claimed is Kind.PDF else 0)
    if marked:
        return marked
    if claimed in _MARKED:
        raise Unparsable(
            "unsupported_type",
            f"is called {_MARKED[claimed]}, but its contents are none; give it its right name or save it anew",
        )
    if claimed is not Kind.MARKDOWN and _HTML.match(_beginning(data)):
        return Kind.HTML
    return claimed or Kind.TEXT


def claimed_kind(name: str, content_type: str = "") -> Kind | None:
    """What the media type says or, if that says no more than "text" or "bytes", the name; None if neither does."""
    declared = MEDIA_TYPES.get(content_type.partition(";")[0].strip().lower())
    named = EXTENSIONS.get(PurePath(name).suffix.lower())
    return named if declared in (None, Kind.TEXT) and named else declared


def _marked(data: bytes, *, lead: int) -> Kind | None:
    """The kind that the first bytes tell, if they do. Raises Unparsable for what is known and not read."""
    if data.startswith(_ZIP):
        return _office(data)
    if data.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in data:
            raise Unparsable("encrypted", "is protected by a password; save it without one")
        raise Unparsable("unsupported_type", "is an office document of the old form; save it as DOCX or PDF")
    if data.startswith(b"{\\rtf"):
        raise Unparsable("unsupported_type", "is a rich text file (RTF); save it as DOCX or PDF")
    if what := next((what for mark, what in _NO_TEXT.items() if data.startswith(mark)), None):
        raise Unparsable("not_text", f"is {what}; {READABLE} can be indexed")
    return Kind.PDF if _PDF_MARK in data[: lead + len(_PDF_MARK)] else None


def _office(data: bytes) -> Kind:
    if what := next((what for part, what in _OFFICE.items() if part in data), None):
        raise Unparsable("unsupported_type", f"is {what}; save it as PDF, DOCX or CSV")
    if b"word/" in data and b"[Content_Types].xml" in data:
        return Kind.DOCX
    raise Unparsable("not_text", f"is a ZIP archive; {READABLE} can be indexed, so unpack it first")


def _beginning(data: bytes) -> str:
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data[:4096].decode("utf-16" if wide else "utf-8", "ignore").removeprefix("\ufeff")
