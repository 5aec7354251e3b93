"""Documents as programs write them, made here so that a test can say what stands in each."""

import io
import zipfile
from email.message import EmailMessage

import docx
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject, StreamObject


def _bytes(write) -> bytes:
    made = io.BytesIO()
    write(made)
    return made.getvalue()


def pdf(*pages: str, title: str = "", password: str = "") -> bytes:
    """A PDF with a line of text on each page; an empty one gets a page without text."""
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(595, 842)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
                NameObject("/Encoding"): NameObject("/WinAnsiEncoding"),
            }
        )
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        drawn = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)").encode("cp1252")
        stream: StreamObject = DecodedStreamObject()
        stream.set_data(b"BT /F1 12 Tf 72 720 Td (" + drawn + b") Tj ET" if text else b"0 0 10 10 re f")
        page[NameObject("/Contents")] = writer._add_object(stream)
    if title:
        writer.add_metadata({"/Title": title})
    if password:
        writer.encrypt(password, algorithm="AES-256")
    return _bytes(writer.write)


def word() -> bytes:
    """A Word document with a title, headings, a list and a table."""
    document = docx.Document()
    document.core_properties.title = "Manual of the X200"
    document.add_heading("Warranty", level=1)
    document.add_paragraph("24 months from the day of purchase, naïve as it is.")
    document.add_heading("Exceptions", level=2)
    document.add_paragraph("Batteries", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(
        [cell for row in table.rows for cell in row.cells], ["Part", "Months", "Screen", "12"], strict=True
    ):
        cell.text = text
    return _bytes(document.save)


def mail() -> bytes:
    """A message in two forms, with a file."""
    message = EmailMessage()
    message["From"] = "Zoë <zoe@example.com>"
    message["To"] = "ada@example.com"
    message["Date"] = "Mon, 02 Mar 2026 10:00:00 +0000"
    message["Subject"] = "Größe of the order"
    message.set_content("Forty boxes, please.\n\nZoë")
    message.add_alternative("<p>Forty <b>boxes</b>, please.</p>", subtype="html")
    message.add_attachment(b"\x89PNG\r\n", maintype="image", subtype="png", filename="größe.png")
    return message.as_bytes()


HTML = b"""<!doctype html><html><head><meta charset="utf-8"><title>X200 manual</title><script>let a = "<p>no</p>"
</script><style>p {}</style></head><body><nav>Home</nav><main><h1>Warranty</h1><p>24 months,
from the <b>day</b> of purchase.</p><ul><li>Screen</li><li>Case</li></ul>
<table><tr><th>Part</th><th>Months</th></tr><tr><td>Screen</td><td>12</td></tr></table>
<pre>reset --all
# now</pre><p hidden>secret</p><p># no heading</p></main><footer>Imprint</footer></body></html>"""
CSV = b'\xef\xbb\xbfpart;months;note\r\nscreen;12;"says ""glass"";\nfragile"\r\n\r\ncase;;none\r\n'
JSON = (
    b'{"product": "X200", "sizes": [1, 2], "empty": null, "parts": ['
    b'{"name": "screen", "terms": {"months": 12}}, {"name": "caf\\u00e9", "ok": true}]}'
)
JSONL = b'{"q": "How long?", "a": "24 months"}\n\n{"q": "Who?", "a": "# You"}\n'
MARKDOWN = b"# X200\r\n\r\nIt *works*.\r\n"
TEXT = "Plain — text\rof two lines.".encode()

#: One real file of each kind, by name.
FILES = {
    "notes.txt": TEXT,
    "x200.md": MARKDOWN,
    "manual.html": HTML,
    "manual.pdf": pdf("Warranty: 24 months (all parts).", "Café closes at six.", title="Manual of the X200"),
    "manual.docx": word(),
    "parts.csv": CSV,
    "parts.json": JSON,
    "faq.jsonl": JSONL,
    "order.eml": mail(),
}


def repacked(original: bytes, **parts: bytes) -> bytes:
    """An office document with other contents; `word_document_xml` names the part word/document.xml."""
    given = {name.replace("_xml", ".xml").replace("_", "/"): data for name, data in parts.items()}
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(original)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, given.get(name, old.read(name)))
    return made.getvalue()


def archive(**files: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in files.items():
            new.writestr(name, data)
    return made.getvalue()
