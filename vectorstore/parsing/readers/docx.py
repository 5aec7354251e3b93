"""Word documents as Markdown: a walk over the parts that hold text, in which nothing is resolved and no tree is built.

A library that offers paragraphs and tables alone would lose what stands in content controls, text boxes, insertions
under review and footnotes.
"""

import re

from vectorstore.parsing.readers.archive import Archive
from vectorstore.parsing.readers.output import Output, one_line, plain
from vectorstore.parsing.values import Parsed

_WORD = {
    "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "http://purl.oclc.org/ooxml/wordprocessingml/main",
}
_COMPATIBLE = "http://schemas.openxmlformats.org/markup-compatibility/2006"
_HEADING = re.compile(r"heading ([1-9])")
_BASED_ON = 10


def read(data: bytes, *, declared: str, most_chars: int) -> Parsed:
    archive = Archive(data)
    main = archive.main_part()
    folder = main.rpartition("/")[0]
    styles = _Styles()
    archive.walk(f"{folder}/styles.xml", start=styles.start)
    body = _Body(Output(most_chars), styles.inherit())
    for part in (main, f"{folder}/footnotes.xml", f"{folder}/endnotes.xml"):
        archive.walk(part, start=body.start, end=body.end, text=body.text)
    return Parsed(text=str(body.output), title=_title(archive) or body.first_heading, markdown=True)


def _local(name: str) -> str:
    """The name of an element of Word's, else nothing."""
    namespace, _, local = name.rpartition(" ")
    return local if namespace in _WORD else ""


def _value(attributes: dict[str, str], wanted: str = "val") -> str:
    return next((value for name, value in attributes.items() if name.rpartition(" ")[2] == wanted), "")


class _Styles:
    """Heading levels by the id of a paragraph style; Word writes the names of its own styles in English."""

    def __init__(self) -> None:
        self.levels: dict[str, int] = {}
        self._based: dict[str, str] = {}
        self._current = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        match _local(name):
            case "style":
                self._current = _value(attributes, "styleId")
            case "name":
                named = _value(attributes).lower()
                if found := _HEADING.fullmatch(named):
                    self.levels[self._current] = int(found[1])
                elif named == "title":
                    self.levels[self._current] = 1
            case "basedOn":
                self._based[self._current] = _value(attributes)
            case "outlineLvl":
                if level := _outline(attributes):
                    self.levels[self._current] = level

    def inherit(self) -> dict[str, int]:
        """The levels, with those of styles that build on another one."""
        for style in self._based:
            parent = style
            for _ in range(_BASED_ON):
                parent = self._based.get(parent, "")
                if parent in self.levels:
                    self.levels.setdefault(style, self.levels[parent])
        return self.levels


def _outline(attributes: dict[str, str]) -> int:
    """A heading's level, counted from 1; 0 for body text."""
    level = _value(attributes)
    return int(level) + 1 if level in set("012345678") else 0


def _title(archive: Archive) -> str:
    pieces: list[str] = []
    inside = [False]

    def start(name: str, _: dict[str, str]) -> None:
        inside[0] = name == "http://purl.org/dc/elements/1.1/ title"

    def end(_: str) -> None:
        inside[0] = False

    archive.walk(
        "docProps/core.xml", start=start, end=end, text=lambda text: pieces.append(text) if inside[0] else None
    )
    return one_line("".join(pieces))


class _Paragraph:
    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.style = ""
        self.level = 0
        self.listed = False


class _Body:
    """Handlers of the elements of the text. Paragraphs and tables may stand inside of one another."""

    def __init__(self, output: Output, levels: dict[str, int]) -> None:
        self.output = output
        self.first_heading = ""
        self._levels = levels
        self._paragraphs: list[_Paragraph] = []
        #: Of each open table: its finished rows, the cells of the open row, the paragraphs of the open cell.
        self._tables: list[tuple[list[str], list[str], list[str]]] = []
        self._in_text = False
        #: How deep we are inside of what is not part of the text: moved away, or a copy for older programs.
        self._skipping = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        local = _local(name)
        if self._skipping or local == "moveFrom" or name == f"{_COMPATIBLE} Fallback":
            self._skipping += 1
        elif local == "p":
            self._paragraphs.append(_Paragraph())
        elif local == "tbl":
            self._tables.append(([], [], []))
        elif local and self._paragraphs:
            self._inside(self._paragraphs[-1], local, attributes)

    def _inside(self, paragraph: _Paragraph, local: str, attributes: dict[str, str]) -> None:
        match local:
            case "t":
                self._in_text = True
            case "tab":
                paragraph.pieces.append("\t")
            case "br" | "cr":
                paragraph.pieces.append("\n")
            case "noBreakHyphen":
                paragraph.pieces.append("-")
            case "pStyle":
                paragraph.style = _value(attributes)
            case "numPr":
                paragraph.listed = True
            case "outlineLvl":
                paragraph.level = _outline(attributes)

    def text(self, text: str) -> None:
        if self._in_text and not self._skipping and self._paragraphs:
            self._paragraphs[-1].pieces.append(text)

    def end(self, name: str) -> None:
        if self._skipping:
            self._skipping -= 1
            return
        match _local(name):
            case "t":
                self._in_text = False
            case "p" if self._paragraphs:
                self._paragraph(self._paragraphs.pop())
            case "tc" if self._tables:
                _, cells, paragraphs = self._tables[-1]
                cells.append(one_line(" ".join(paragraphs)))
                paragraphs.clear()
            case "tr" if self._tables:
                rows, cells, _ = self._tables[-1]
                rows.append(" | ".join(cells) if any(cells) else "")
                cells.clear()
            case "tbl" if self._tables:
                rows, _, _ = self._tables.pop()
                self._write("\n".join(row for row in rows if row))

    def _paragraph(self, paragraph: _Paragraph) -> None:
        text = "".join(paragraph.pieces)
        level = paragraph.level or self._levels.get(paragraph.style, 0)
        if level and not self._tables and text.strip():
            self.first_heading = self.first_heading or one_line(text)
            self.output.heading(level, text)
        elif text.strip():
            self._write(f"- {text.strip()}" if paragraph.listed else text)

    def _write(self, text: str) -> None:
        if self._tables:
            self._tables[-1][2].append(text)
        else:
            self.output.paragraph(plain(text))
