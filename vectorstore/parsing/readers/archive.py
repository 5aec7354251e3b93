"""The parts of an office document: a ZIP archive that may lie about its sizes, and XML that may refer to anything."""

from collections.abc import Callable
from io import BytesIO
from posixpath import normpath
from xml.parsers import expat
from zipfile import BadZipFile, ZipFile, ZipInfo
from zlib import error as ZlibError  # noqa: N812  it is named as a module would be

from vectorstore.parsing.values import Unparsable

_MOST_ENTRIES = 5000
_MOST_BYTES = 500_000_000
#: Of one part that is unpacked; and how often its size in the archive, from a size on that matters.
_MOST_PART = 100_000_000
_MOST_RATIO = 300
_RATIO_FROM = 5_000_000
_ENCRYPTED = 0x1
_PIECE = 65_536
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships Relationship"


class Archive:
    """Raises Unparsable for what is damaged, encrypted, or unpacks to more than a document would."""

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = ZipFile(BytesIO(data))
        except (BadZipFile, ValueError, NotImplementedError) as error:
            raise _damaged() from error
        entries = self._zip.infolist()
        if len(entries) > _MOST_ENTRIES or sum(entry.file_size for entry in entries) > _MOST_BYTES:
            raise Unparsable("too_large", "unpacks to far more than a document holds")
        self._entries = {entry.filename: entry for entry in entries}

    def main_part(self) -> str:
        """The name of the part that is the document."""
        found = ["word/document.xml"]

        def relation(name: str, attributes: dict[str, str]) -> None:
            if name == _RELATIONS and attributes.get("Type", "").endswith("/officeDocument"):
                found.insert(0, normpath(attributes.get("Target", "").lstrip("/")))

        self.walk("_rels/.rels", start=relation)
        if found[0] not in self._entries:
            raise _damaged()
        return found[0]

    def walk(
        self,
        part: str,
        *,
        start: Callable[[str, dict[str, str]], None],
        end: Callable[[str], None] | None = None,
        text: Callable[[str], None] | None = None,
    ) -> None:
        """Read a part's elements, named "namespace local"; nothing happens if there is no such part."""
        entry = self._entries.get(part)
        if entry is None:
            return
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.CharacterDataHandler = text
        # Entities are declared in it, the ones of a file or an address and the ones that grow without end.
        parser.StartDoctypeDeclHandler = _no_doctype
        try:
            self._feed(entry, parser)
        except expat.ExpatError as error:
            raise _damaged() from error

    def _feed(self, entry: ZipInfo, parser: expat.XMLParserType) -> None:
        if entry.flag_bits & _ENCRYPTED:
            raise Unparsable("encrypted", "is protected by a password; save it without one")
        if entry.file_size > max(_RATIO_FROM, entry.compress_size * _MOST_RATIO) or entry.file_size > _MOST_PART:
            raise Unparsable("too_large", "unpacks to far more than a document holds")
        try:
            with self._zip.open(entry) as file:
                # It ends at the size that was declared, whatever the packed data would go on to.
                while piece := file.read(_PIECE):
                    parser.Parse(piece, False)
        except (BadZipFile, ZlibError, EOFError, NotImplementedError, ValueError) as error:
            raise _damaged() from error
        parser.Parse(b"", True)


def _no_doctype(*_: object) -> None:
    raise Unparsable("parse_failed", "declares XML entities, which no word processor does; save it anew")


def _damaged() -> Unparsable:
    return Unparsable("parse_failed", "is a damaged Word document; open it and save it anew")
