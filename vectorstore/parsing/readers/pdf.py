"""PDF: the text of its pages, and where each page begins."""

import logging
from io import BytesIO

from pypdf import PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, PdfReadError, PyPdfError, WrongPasswordError

from kernel.text import storable
from vectorstore.parsing.readers.output import Output, one_line
from vectorstore.parsing.values import Parsed, Unparsable

_MOST_PAGES = 5000
#: Titles that programs write when nobody gave one.
_NO_TITLES = ("untitled", "microsoft word", "microsoft powerpoint", "document", "unbenannt")


def read(data: bytes, *, declared: str, most_chars: int) -> Parsed:
    # What it has to say about damaged files goes nowhere, and formatting it costs.
    logging.disable(logging.CRITICAL)
    reader = _opened(data)
    output = Output(most_chars)
    starts = []
    for number, page in enumerate(reader.pages):
        if number >= _MOST_PAGES:
            raise Unparsable("too_large", f"has more than {_MOST_PAGES} pages; split it")
        text = storable(page.extract_text()).strip()
        if number:
            output.add("\n\n")
        starts.append(output.length)
        output.add(text)
    if starts and output.length <= 2 * len(starts):
        raise Unparsable("no_text", "has no text on its pages: it is probably a scan; recognise its text (OCR) first")
    return Parsed(text=str(output), title=_title(reader), metadata={"pages": starts})


def _opened(data: bytes) -> PdfReader:
    try:
        reader = PdfReader(BytesIO(data), root_object_recovery_limit=1000, xref_stream_maximum_entries=500_000)
        # Many are encrypted with an empty password, which forbids printing and opens anyway.
        if reader.is_encrypted and not reader.decrypt(""):
            raise _locked()
        pages = len(reader.pages)
    except (FileNotDecryptedError, WrongPasswordError, DependencyError, NotImplementedError) as error:
        raise _locked() from error
    except PdfReadError as error:
        raise Unparsable("parse_failed", "is a damaged PDF; save or print it to PDF anew") from error
    if not pages:
        raise Unparsable("parse_failed", "is a damaged PDF: it has no pages; save or print it to PDF anew")
    return reader


def _locked() -> Unparsable:
    return Unparsable("encrypted", "is protected by a password; save it without one")


def _title(reader: PdfReader) -> str:
    try:
        title = one_line(str((reader.metadata and reader.metadata.title) or ""))
    except (PyPdfError, ValueError, TypeError, AttributeError, KeyError):
        return ""
    return "" if title.lower().startswith(_NO_TITLES) else title
