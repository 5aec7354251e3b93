"""What people upload: the names of files, and which of them are taken in."""

import unicodedata

from kernel.conf import config as settings
from kernel.errors import Invalid
from kernel.text import storable
from llm.registry import document_parsers
from vectorstore.errors import DocumentTooLarge
from vectorstore.parsing.documents import shown, sniff
from vectorstore.values import LONGEST_SOURCE

#: Files of one request; Django's own bound (DATA_UPLOAD_MAX_NUMBER_FILES) is the same.
MAX_FILES = 100


def source_of(name: str) -> str:
    """A file's name, or its path in a folder, as a source: parts joined by slashes, none of them going up.

    Raises Invalid for a name with nothing in it, or a very long one.
    """
    plain = unicodedata.normalize("NFC", storable(name)).replace("\\", "/")
    # Control and format characters (line ends, direction marks) only serve to make a name look like another one.
    plain = "".join(each for each in plain if unicodedata.category(each) not in ("Cc", "Cf", "Zl", "Zp"))
    parts = [part.strip() for part in plain.split("/")]
    source = "/".join(part for part in parts if part not in ("", ".", ".."))
    if not source:
        raise Invalid("A file needs a name.")
    if len(source) > LONGEST_SOURCE:
        raise Invalid(f"A file's path has at most {LONGEST_SOURCE} characters.")
    return source


def check_size(source: str, size: int) -> None:
    """Raises DocumentTooLarge."""
    most = settings().vector_store.max_document_bytes
    if size > most:
        raise DocumentTooLarge(f"{shown(source)} has more than {most} bytes; split it.")


def check_kind(data: bytes, source: str, content_type: str) -> None:
    """Raises an Unreadable for what no parser reads."""
    suffix = f".{source.rpartition('.')[2].lower()}"
    if suffix not in document_parsers.names():
        sniff(data, name=source, content_type=content_type)


def most_bytes() -> int:
    """The most that one request may hold: ten documents of the largest size."""
    return 10 * settings().vector_store.max_document_bytes
