"""Any file as text that can be indexed, or an error that names it and says why not."""

import asyncio
from logging import getLogger
from pathlib import PurePath

from kernel.conf import config
from kernel.errors import Refused
from kernel.text import storable
from llm.registry import document_parsers
from vectorstore import errors
from vectorstore.parsing import kinds, process
from vectorstore.parsing.decoding import decoded
from vectorstore.parsing.kinds import Kind
from vectorstore.parsing.values import Parsed, Unparsable

__all__ = ["Kind", "Parsed", "error_of", "parse", "shown", "sniff"]

logger = getLogger(__name__)

#: Which reader of the child process takes which kind. What is missing is decoded in this process.
_READERS = {
    Kind.HTML: "web",
    Kind.PDF: "pdf",
    Kind.DOCX: "docx",
    Kind.CSV: "table",
    Kind.JSON: "data",
    Kind.JSONL: "data",
    Kind.EMAIL: "mail",
}
_ERRORS: dict[str, type[errors.Unreadable]] = {
    kind.code: kind
    for kind in (
        errors.NotText,
        errors.UnsupportedType,
        errors.Encrypted,
        errors.NoText,
        errors.ParseTimeout,
        errors.ParseFailed,
        errors.DocumentTooLarge,
    )
}
_LONGEST_NAME = 200


def sniff(data: bytes, *, name: str, content_type: str = "") -> Kind:
    """What a file is: by its contents, then what was declared, then its name. The first few KB of it will not do.

    Raises NotText, UnsupportedType or Encrypted, which say what it is instead.
    """
    try:
        return kinds.kind_of(data, name=name, content_type=content_type)
    except Unparsable as error:
        raise error_of(error, name) from error


async def parse(data: bytes, *, name: str, content_type: str = "") -> Parsed:
    """The text of a file. `name` is for messages and for its extension, `content_type` what was declared (or nothing).

    Text and Markdown are decoded here; the rest is read in a limited child process, within
    VECTOR_STORE["PARSE_TIMEOUT"] seconds once it has its turn. An extension that a team registered a parser for goes
    to that one. Raises an Unreadable that names the file, and Busy if too many documents wait.
    """
    try:
        parsed = await _parsed(data, name, content_type)
        if not parsed.text.strip():
            raise Unparsable("no_text", "has no text to index")
        if len(parsed.text) > config().vector_store.max_text_chars:
            raise _too_long()
    except Unparsable as error:
        raise error_of(error, name) from error
    return parsed


async def _parsed(data: bytes, name: str, content_type: str) -> Parsed:
    most = config().vector_store.max_document_bytes
    if len(data) > most:
        raise Unparsable("too_large", f"has more than {most} bytes; raise VECTOR_STORE['MAX_DOCUMENT_BYTES'] or cut it")
    extension = PurePath(name).suffix.lower()
    if extension and extension in document_parsers.names():
        return await _registered(extension, data, name)
    kind = kinds.kind_of(data, name=name, content_type=content_type)
    declared = _charset(content_type)
    if reader := _READERS.get(kind):
        parsed = await process.read(data, reader=reader, declared=declared)
    else:
        parsed = Parsed(text=await asyncio.to_thread(_plain, data, declared), markdown=kind is Kind.MARKDOWN)
    # A Markdown document names itself by its first heading.
    title = parsed.title or ("" if kind is Kind.MARKDOWN else storable(PurePath(shown(name)).stem))
    return Parsed(
        text=parsed.text, title=title, markdown=parsed.markdown, metadata={**parsed.metadata, "kind": str(kind)}
    )


def _plain(data: bytes, declared: str) -> str:
    return storable(decoded(data, declared=declared).replace("\r\n", "\n").replace("\r", "\n"))


async def _registered(extension: str, data: bytes, name: str) -> Parsed:
    """What a team's own parser says. It runs in a thread of this process: what it takes, it takes from us."""
    read = document_parsers.get(extension)
    seconds = config().vector_store.parse_timeout
    try:
        async with asyncio.timeout(seconds):
            parsed: Parsed = await asyncio.to_thread(read, data, name)
        return Parsed(
            text=storable(parsed.text), title=storable(parsed.title), markdown=parsed.markdown, metadata=parsed.metadata
        )
    except TimeoutError as error:
        raise Unparsable("parse_timeout", f"takes longer than {seconds:g} seconds to be read; split it") from error
    except (Refused, Unparsable):
        raise
    except Exception as error:
        logger.warning("action=document_parser_failed reader=%s error=%s", extension, type(error).__name__)
        raise Unparsable("parse_failed", f"could not be read by the parser of {extension} files") from error


def error_of(error: Unparsable, name: str) -> errors.Unreadable:
    """The typed error, with the file's name."""
    return _ERRORS.get(error.code, errors.Unreadable)(f"{shown(name)} {error.reason}.")


def shown(name: str) -> str:
    """A file's name as a message may hold it: in one line, without what a terminal would obey, not too long."""
    plain = "".join(character if character.isprintable() else "\ufffd" for character in storable(name))
    return plain if len(plain) <= _LONGEST_NAME else f"…{plain[-_LONGEST_NAME:]}"


def _charset(content_type: str) -> str:
    for parameter in content_type.split(";")[1:]:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset":
            return value.strip().strip("\"'")
    return ""


def _too_long() -> Unparsable:
    most = config().vector_store.max_text_chars
    return Unparsable(
        "too_large", f"has more than {most} characters of text; split it or raise VECTOR_STORE['MAX_TEXT_CHARS']"
    )
