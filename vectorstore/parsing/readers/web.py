"""HTML as Markdown: headings, paragraphs, lists, tables and code; what is no content is left out."""

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from vectorstore.parsing.decoding import decoded
from vectorstore.parsing.readers import nesting
from vectorstore.parsing.readers.output import Output, one_line, plain
from vectorstore.parsing.values import Parsed

_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
#: Where a declaration may stand.
_HEAD = 4096
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div", "dl"),
    *("dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "legend", "li", "main", "ol", "p"),
    *("pre", "search", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul", *_HEADINGS),
}
_LEFT_OUT = {
    *("script", "style", "noscript", "template", "head", "nav", "svg", "math", "iframe", "object", "embed", "canvas"),
    *("audio", "video", "select", "datalist", "button", "textarea", "-comment", "dialog"),
}


def read(data: bytes, *, declared: str, most_chars: int) -> Parsed:
    """The page's `main` part if it has one, else all of its body."""
    found = _META_CHARSET.search(data, 0, _HEAD)
    named = found[1].decode() if found else ""
    # Who can read this declaration as ASCII does not read UTF-16: browsers take it for UTF-8 too.
    text = decoded(data, declared=declared or ("" if named.lower().startswith("utf-16") else named))
    return page(text, Output(most_chars))


def page(text: str, output: Output) -> Parsed:
    """As `read`, for a page that is text already."""
    nesting.check(text)
    document = LexborHTMLParser(text)
    named = document.css_first("title")
    whole = document.body
    mains = document.css("main")
    # An empty one is filled by a script that we don't run.
    start = next((main for main in mains if main.text().strip()), whole) if len(mains) == 1 else whole
    shape = _Shape(output)
    if start is not None:
        _walk(start, shape)
    shape.close()
    title = one_line(named.text()) if named is not None else ""
    return Parsed(text=str(output), title=title or shape.first_heading, markdown=True)


def _walk(start: LexborNode, shape: "_Shape") -> None:
    """All nodes below, in order, without recursion: a page may be nested as deeply as it likes."""
    node: LexborNode | None = start
    open_nodes: list[LexborNode] = []
    while node is not None:
        tag = node.tag or ""
        below = None
        if tag == "-text":
            shape.text(node.text_content or "")
        elif tag not in _LEFT_OUT and not _hidden(node):
            shape.open(tag)
            below = node.child
            if below is None:
                shape.shut(tag)
        if below is not None:
            open_nodes.append(node)
            node = below
            continue
        following = node.next if open_nodes else None
        while following is None and open_nodes:
            parent = open_nodes.pop()
            shape.shut(parent.tag or "")
            following = parent.next if open_nodes else None
        node = following


def _hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    return "hidden" in attributes or attributes.get("aria-hidden") == "true"


class _Shape:
    """Gathers the text of one block, and writes it when the block ends."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._pieces: list[str] = []
        self._code = 0
        self._cells: list[str] | None = None
        self.first_heading = ""

    def text(self, text: str) -> None:
        self._pieces.append(text if self._code else re.sub(r"\s+", " ", text))

    def open(self, tag: str) -> None:
        if tag == "br":
            self._pieces.append("\n")
        elif tag in {"td", "th"}:
            self._pieces.append("" if not self._pieces else " | ")
        elif tag in _BLOCKS:
            self._end()
            self._code += tag == "pre"
            if tag == "li":
                self._pieces.append("- ")

    def shut(self, tag: str) -> None:
        if tag in _HEADINGS:
            name = one_line("".join(self._pieces))
            self._pieces.clear()
            self._output.heading(_HEADINGS[tag], name)
            self.first_heading = self.first_heading or name
        elif tag == "pre":
            self._fenced()
            self._code -= 1
        elif tag in _BLOCKS:
            self._end()

    def close(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._code:
            return
        text = "\n".join(line.strip() for line in "".join(self._pieces).split("\n"))
        self._pieces.clear()
        if text.strip(" -|"):
            self._output.paragraph(plain(text))

    def _fenced(self) -> None:
        code = "".join(self._pieces).strip("\n")
        self._pieces.clear()
        if code.strip():
            fence = "~~~" if "```" in code else "```"
            self._output.paragraph(f"{fence}\n{code}\n{fence}")
