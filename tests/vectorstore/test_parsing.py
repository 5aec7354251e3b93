"""A file of each kind gives its text, in the order and the shape that a reader of it sees."""

import asyncio

import pytest

from kernel.errors import Busy, Invalid
from llm.registry import document_parsers
from tests.vectorstore import corpus
from vectorstore.errors import DocumentTooLarge, NoText, NotText, ParseFailed, ParseTimeout, Unreadable, UnsupportedType
from vectorstore.parsing import process
from vectorstore.parsing.documents import Kind, Parsed, parse, sniff

HTML = """# Warranty

24 months, from the day of purchase.

- Screen

- Case

Part | Months

Screen | 12

```
reset --all
# now
```

\\# no heading"""
DOCX = """# Warranty

24 months from the day of purchase, naïve as it is.

## Exceptions

Batteries

Part | Months
Screen | 12"""
CSV = """part: screen
months: 12
note: says "glass"; fragile

part: case
note: none"""
JSON = """product: X200
sizes: 1, 2

# parts

name: screen
terms.months: 12

name: café
ok: true"""
EMAIL = """# Größe of the order

From: Zoë <zoe@example.com>
To: ada@example.com
Date: Mon, 02 Mar 2026 10:00:00 +0000

Forty boxes, please.

Zoë"""
MAIL = {
    "from": "Zoë <zoe@example.com>",
    "to": "ada@example.com",
    "date": "Mon, 02 Mar 2026 10:00:00 +0000",
    "attachments": ["größe.png"],
}


@pytest.mark.parametrize(
    ("name", "kind", "text", "title", "markdown", "more"),
    [
        ("notes.txt", "text", "Plain — text\nof two lines.", "notes", False, {}),
        ("x200.md", "markdown", "# X200\n\nIt *works*.\n", "", True, {}),
        ("manual.html", "html", HTML, "X200 manual", True, {}),
        (
            *("manual.pdf", "pdf", "Warranty: 24 months (all parts).\n\nCafé closes at six."),
            *("Manual of the X200", False, {"pages": [0, 34]}),
        ),
        ("manual.docx", "docx", DOCX, "Manual of the X200", True, {}),
        ("parts.csv", "csv", CSV, "parts", False, {"columns": ["part", "months", "note"]}),
        ("parts.json", "json", JSON, "parts", True, {}),
        ("faq.jsonl", "jsonl", "q: How long?\na: 24 months\n\nq: Who?\na: # You", "faq", True, {}),
        ("order.eml", "email", EMAIL, "Größe of the order", True, MAIL),
    ],
)
async def test_each_kind_gives_its_text(name, kind, text, title, markdown, more):
    parsed = await parse(corpus.FILES[name], name=f"folder/{name}")
    assert parsed == Parsed(text=text, title=title, markdown=markdown, metadata={**more, "kind": kind})


async def test_pages_begin_where_their_text_does():
    parsed = await parse(corpus.pdf("First page.", "", "Third."), name="a.pdf")
    text, starts = parsed.text, parsed.metadata["pages"]
    assert len(starts) == 3
    assert text[starts[0] :].startswith("First page.")
    assert text[starts[2] :] == "Third."


async def test_a_pdf_that_only_forbids_printing_is_read():
    from io import BytesIO

    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(PdfReader(BytesIO(corpus.pdf("Open to all."))))
    writer.encrypt(user_password="", owner_password="boss", algorithm="AES-256")
    made = BytesIO()
    writer.write(made)
    assert (await parse(made.getvalue(), name="a.pdf")).text == "Open to all."


async def test_text_in_boxes_insertions_and_notes_of_word_is_read_and_what_was_deleted_is_not():
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    body = (
        f"<w:document {space}><w:body>"
        "<w:sdt><w:sdtContent><w:p><w:r><w:t>Control</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        "<w:p><w:ins><w:r><w:t>inserted</w:t></w:r></w:ins><w:del><w:r><w:delText>deleted</w:delText></w:r></w:del></w:p>"
        "</w:body></w:document>"
    ).encode()
    parsed = await parse(corpus.repacked(corpus.word(), word_document_xml=body), name="a.docx")
    assert parsed.text == "Control\n\ninserted"


async def test_a_message_that_has_html_only_is_read_too():
    data = b"From: a@example.com\nSubject: Hi\nContent-Type: text/html; charset=latin-1\n\n<p>Caf\xe9 <b>now</b></p>"
    assert (await parse(data, name="a.eml")).text == "# Hi\n\nFrom: a@example.com\n\nCafé now"


@pytest.mark.parametrize(
    ("data", "content_type", "text"),
    [
        ("größer".encode(), "", "größer"),
        ("\ufeffwide é".encode("utf-16-le"), "", "wide é"),
        ("wider é".encode("utf-32"), "", "wider é"),
        ("Привет, мир".encode("koi8-r"), "text/plain; charset=KOI8-R", "Привет, мир"),
        ("日本語".encode("shift_jis"), 'text/plain; charset="shift_jis"', "日本語"),
        ("“Café” is a nice word".encode("cp1252"), "text/plain; charset=iso-8859-1", "“Café” is a nice word"),
        ("“Café” is a nice word".encode("cp1252"), "", "“Café” is a nice word"),
        # UTF-8 can't be met by chance: a wrong declaration doesn't spoil it.
        ("größer".encode(), "text/plain; charset=latin-1", "größer"),
        # No encodings, though Python has codecs of these names.
        (b"cbyvgr grkg", "text/plain; charset=rot13", "cbyvgr grkg"),
        (b"plain text of some length with a \x00 in it", "", "plain text of some length with a \ufffd in it"),
    ],
)
async def test_text_is_decoded_by_its_mark_its_declaration_or_its_looks(data, content_type, text):
    assert (await parse(data, name="a.txt", content_type=content_type)).text == text


async def test_a_text_whose_encoding_can_not_be_told_is_refused_and_not_guessed():
    with pytest.raises(Unreadable, match=r"a\.txt is not UTF-8 text \(byte 0xF0 at position 0\); save it as UTF-8"):
        await parse("Привет, как дела".encode("cp1251").replace(b"\xcf", b"\xf0"), name="a.txt")


@pytest.mark.parametrize("charset", ["windows-1252", "utf-16"])
async def test_a_page_may_declare_its_encoding(charset):
    codec = "utf-8" if charset == "utf-16" else charset
    page = f'<html><head><meta charset="{charset}"></head><body><p>Café</p></body></html>'.encode(codec)
    assert (await parse(page, name="a.html")).text == "Café"


async def test_the_text_of_a_page_becomes_no_heading_or_code():
    parsed = await parse(b"<html><body><p># one</p><p>```</p></body></html>", name="a.html")
    assert parsed.text == "\\# one\n\n\\```"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb\n1\t2\n", "a: 1\nb: 2"),
        ("a|b\n1|2\n", "a: 1\nb: 2"),
        ("1,2\n3,4\n", "column 1: 1\ncolumn 2: 2\n\ncolumn 1: 3\ncolumn 2: 4"),
        ("name\nAda\n", "name: Ada"),
        ("a,b\n1,2,3\n", "a: 1\nb: 2\ncolumn 3: 3"),
    ],
)
async def test_tables_in_their_many_forms(text, expected):
    assert (await parse(text.encode(), name="a.csv")).text == expected


@pytest.mark.parametrize(
    ("data", "name", "content_type", "kind"),
    [
        (corpus.FILES["manual.pdf"], "a.txt", "text/plain", Kind.PDF),
        (corpus.FILES["manual.docx"], "a.zip", "application/zip", Kind.DOCX),
        (corpus.HTML, "a", "", Kind.HTML),
        (corpus.HTML, "a.txt", "", Kind.HTML),
        (b"a,b", "a.csv", "text/plain", Kind.CSV),
        (b"a,b", "a", "text/csv; charset=utf-8", Kind.CSV),
        (b"# T", "README.MD", "", Kind.MARKDOWN),
        (b"<html>", "a.md", "", Kind.MARKDOWN),
        (b"what", "Makefile", "", Kind.TEXT),
        (b"{}", "a.json", "application/octet-stream", Kind.JSON),
    ],
)
def test_contents_come_before_what_is_declared_and_that_before_the_name(data, name, content_type, kind):
    assert sniff(data, name=name, content_type=content_type) is kind


@pytest.mark.parametrize("name", ["empty.txt", "empty.html", "empty.csv"])
async def test_an_empty_file_has_no_text(name):
    with pytest.raises(NoText, match=rf"{name} has no text to index"):
        await parse(b"  \n", name=name)


async def test_too_many_bytes_or_characters_are_refused_with_the_setting_to_raise(settings):
    settings.DJANGO_CHAIN = {
        **settings.DJANGO_CHAIN,
        "VECTOR_STORE": {"MAX_TEXT_CHARS": 50, "MAX_DOCUMENT_BYTES": 5000},
    }
    for name, data in {
        "a.txt": b"x" * 51,
        "a.csv": b"a,b\n" + b"1,2\n" * 20,
        "a.html": b"<html><p>" + b"y " * 90,
    }.items():
        with pytest.raises(DocumentTooLarge, match=r"more than 50 characters.*MAX_TEXT_CHARS"):
            await parse(data, name=name)
    with pytest.raises(DocumentTooLarge, match=r"more than 5000 bytes; raise VECTOR_STORE\['MAX_DOCUMENT_BYTES'\]"):
        await parse(b"x" * 5001, name="a.txt")


async def test_a_message_names_the_file_in_one_printable_line():
    with pytest.raises(NoText) as caught:
        await parse(b"", name=f"{'x' * 300}\x1b[31m\nevil.txt")
    message = str(caught.value)
    assert message.isprintable()
    assert "evil.txt has no text" in message
    assert len(message) < 300


async def test_no_more_documents_wait_than_may(settings, monkeypatch):
    monkeypatch.setattr(process, "_MOST_WAITING", 3)
    results = await asyncio.gather(*(parse(corpus.CSV, name="a.csv") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(each, Parsed) for each in results) == 3
    assert [each.retry_after for each in results if isinstance(each, Busy)] == [5.0, 5.0]


class TestParsersOfATeam:
    @pytest.fixture
    def register(self, monkeypatch):
        monkeypatch.setattr(document_parsers, "_entries", dict(document_parsers._entries))
        return document_parsers.register(".odt")

    async def test_an_extension_goes_to_its_parser(self, register):
        register(lambda data, name: Parsed(text=f"{name}: {data.decode()}\x00", title="T", metadata={"a": 1}))
        parsed = await parse(b"hello", name="x.ODT")
        assert parsed == Parsed(text="x.ODT: hello\ufffd", title="T", metadata={"a": 1})

    async def test_what_it_raises_is_a_damaged_document(self, register):
        def read(data, name):
            raise KeyError("secret")

        register(read)
        with pytest.raises(ParseFailed, match=r"x\.odt could not be read by the parser of \.odt files") as caught:
            await parse(b"hello", name="x.odt")
        assert "secret" not in str(caught.value)

    async def test_its_own_refusal_stands(self, register):
        def read(data, name):
            raise Invalid("Only the first edition.")

        register(read)
        with pytest.raises(Invalid, match="first edition"):
            await parse(b"hello", name="x.odt")

    async def test_it_has_no_more_time_than_ours(self, register, settings):
        import threading

        settings.DJANGO_CHAIN = {**settings.DJANGO_CHAIN, "VECTOR_STORE": {"PARSE_TIMEOUT": 0.2}}
        released = threading.Event()
        register(lambda data, name: released.wait(30))
        try:
            with pytest.raises(ParseTimeout, match=r"longer than 0\.2 seconds"):
                await parse(b"hello", name="x.odt")
        finally:
            released.set()

    async def test_what_is_no_document_is_its_mistake_and_not_ours(self, register):
        register(lambda data, name: "text")
        with pytest.raises(ParseFailed):
            await parse(b"hello", name="x.odt")


@pytest.mark.parametrize(
    ("data", "name", "error", "why"),
    [
        (b"\x89PNG\r\n\x1a\n", "a.txt", NotText, "a PNG picture"),
        (b"\x7fELF\x02", "a.md", NotText, "a program"),
        (bytes(range(256)) * 10, "a.csv", NotText, "a binary file"),
        (corpus.archive(**{"a.txt": b"a"}), "a.txt", NotText, "a ZIP archive"),
        (corpus.archive(**{"xl/workbook.xml": b""}), "a.docx", UnsupportedType, "an Excel workbook; save it as PDF"),
        (b"{\\rtf1 hello}", "a.txt", UnsupportedType, "RTF"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
            "a.doc",
            UnsupportedType,
            "of the old form; save it as DOCX",
        ),
        (b"only text", "a.pdf", UnsupportedType, "is called a PDF, but"),
        (b"only text", "a.docx", UnsupportedType, r"is called a Word document \(DOCX\), but"),
    ],
)
async def test_what_is_not_read_says_what_it_is_and_what_to_do(data, name, error, why):
    with pytest.raises(error, match=why):
        await parse(data, name=name)
