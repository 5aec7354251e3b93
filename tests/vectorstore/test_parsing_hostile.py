"""Files that are broken or made to do harm: each gives its reason or its text, within its bounds."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from tests.vectorstore import corpus
from vectorstore.errors import DocumentTooLarge, Encrypted, NoText, NotText, ParseFailed, ParseTimeout, Unreadable
from vectorstore.parsing import process
from vectorstore.parsing.documents import Parsed, parse

WORD = corpus.word()
DOCTYPE = '<?xml version="1.0"?><!DOCTYPE d [{}]><d>&a;</d>'
LAUGHS = '<!ENTITY z "ha">' + "".join(
    f'<!ENTITY {name} "{10 * f"&{before};"}">' for before, name in zip("zbcdefgh", "bcdefgha", strict=True)
)
LOOP = b"""%PDF-1.4
1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj
2 0 obj <</Type /Pages /Kids [3 0 R] /Count 1>> endobj
3 0 obj <</Type /Pages /Kids [2 0 R] /Count 1 /Parent 2 0 R>> endobj
trailer <</Root 1 0 R>>
%%EOF"""

#: Takes minutes: what looks like its end tags gets it past the look at its depth.
SLOW = b'<div a="</div>">' * 100_000


def nested_mail(depth: int) -> bytes:
    heads = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(depth))
    return b"From: a@example.com\nSubject: Deep\n" + heads + b"Content-Type: text/plain\n\nbottom\n"


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    deadline = time.monotonic() + 5
    while parsers_running() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert parsers_running() == []


def parsers_running(parent: int | None = None) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(parent or os.getpid()).children(recursive=True):
        try:
            if any(argument.endswith("parsing/child.py") for argument in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("name", "data", "error", "why"),
    [
        (
            *("bomb.docx", corpus.repacked(WORD, word_document_xml=b"<d>" + bytes(50_000_000))),
            *(DocumentTooLarge, "unpacks to far more"),
        ),
        ("nested.zip", corpus.archive(**{"inner.zip": corpus.archive(**{"a.txt": b"a"})}), NotText, "ZIP archive"),
        (
            *(
                "xxe.docx",
                corpus.repacked(
                    WORD, word_document_xml=DOCTYPE.format('<!ENTITY a SYSTEM "file:///etc/passwd">').encode()
                ),
            ),
            *(ParseFailed, "declares XML entities"),
        ),
        (
            *("laughs.docx", corpus.repacked(WORD, word_document_xml=DOCTYPE.format(LAUGHS).encode())),
            *(ParseFailed, "declares XML entities"),
        ),
        ("cut.docx", WORD[: len(WORD) // 2], ParseFailed, "damaged"),
        ("cut.pdf", corpus.FILES["manual.pdf"][:300], ParseFailed, "damaged"),
        ("loop.pdf", LOOP, Unreadable, r"damaged|no text"),
        ("locked.pdf", corpus.pdf("Secret.", password="open"), Encrypted, "protected by a password"),
        ("scan.pdf", corpus.pdf("", ""), NoText, "probably a scan"),
        ("deep.json", b"[" * 100_000 + b"]" * 100_000, ParseFailed, "nested too deeply"),
        ("deeper.json", b'{"a":' * 80 + b"1" + b"}" * 80, ParseFailed, "more than 64 levels"),
        ("digits.json", b"9" * 10_000, ParseFailed, "too many digits"),
        ("cut.json", b'{"a": 1', ParseFailed, "not valid JSON"),
        ("deep.html", b"<div>" * 60_000 + b"x", ParseFailed, "more than 2000 levels"),
        ("unclosed.html", b"<form><div></form>" * 60_000, ParseFailed, "more than 2000 levels"),
        ("field.csv", b'a,b\n1,"' + b"x" * 200_000 + b'"\n', ParseFailed, "too long"),
        ("wide.csv", b",".join([b"x"] * 5000), DocumentTooLarge, "more than 1000 columns"),
        ("nul.csv", b"\x00" * 1000, NotText, "binary"),
        ("parts.eml", nested_mail(600), Unreadable, "nested too deeply|parts|damaged"),
        ("none.eml", b"Dear all,\n\nno headers here.", ParseFailed, "is no e-mail"),
    ],
)
async def test_a_hostile_file_gets_its_reason_in_time(name, data, error, why):
    started = time.monotonic()
    with pytest.raises(error, match=why):
        await parse(data, name=name)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.html", b"<html>" + corpus.FILES["manual.pdf"], "html"),
        ("a.html", corpus.FILES["manual.pdf"] + corpus.HTML, "pdf"),
        ("a.pdf", corpus.FILES["manual.pdf"] + WORD, "pdf"),
    ],
)
async def test_a_file_of_two_kinds_is_read_as_its_beginning_says(name, data, kind):
    assert (await parse(data, name=name)).metadata["kind"] == kind


async def test_forgotten_end_tags_are_no_depth():
    page = b"<html><body><table>" + b"<tr><td>cell<td>two" * 3000 + b"</table>" + b"<p>para<br>" * 3000 + b"<svg>"
    page += b"<path d='m'/>" * 3000 + b"</svg><div><!-- <div> --></div>" * 1000
    assert "para" in (await parse(page, name="a.html")).text


async def test_time_is_bounded(settings):
    settings.DJANGO_CHAIN = {**settings.DJANGO_CHAIN, "VECTOR_STORE": {"PARSE_TIMEOUT": 1}}
    started = time.monotonic()
    with pytest.raises(ParseTimeout, match="longer than 1 seconds"):
        await parse(SLOW, name="slow.html")
    assert time.monotonic() - started < 10


async def test_who_no_longer_waits_leaves_no_process():
    reading = asyncio.create_task(parse(SLOW, name="slow.html"))
    async with asyncio.timeout(20):
        while not parsers_running():
            await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert parsers_running() == []


PARENT = """
import asyncio, django
django.setup()
from vectorstore.parsing.documents import parse
asyncio.run(parse(b'<div a="</div>">' * 100_000, name='slow.html'))
"""


async def test_a_parser_dies_with_its_parent():
    parent = subprocess.Popen(  # noqa: ASYNC220  a process of its own, which is killed
        [sys.executable, "-c", PARENT], env={**os.environ, "DJANGO_SETTINGS_MODULE": "django_chain.settings"}
    )
    try:
        deadline = time.monotonic() + 30
        while not (children := parsers_running(parent.pid)) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        assert children
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


@st.composite
def mutated(draw):
    name = draw(st.sampled_from(sorted(corpus.FILES)))
    data = bytearray(corpus.FILES[name])
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        data[place : place + draw(st.integers(0, 20))] = draw(st.binary(max_size=20))
    return name, bytes(data)


@effort(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.one_of(mutated(), st.tuples(st.sampled_from(sorted(corpus.FILES)), st.binary(max_size=300))))
async def test_any_bytes_give_a_text_or_a_reason(file):
    name, data = file
    with contextlib.suppress(Unreadable):
        assert isinstance(await parse(data, name=name), Parsed)


PROBE = """
import io, os, socket, subprocess, sys
from vectorstore.parsing.values import Parsed
DEEDS = {
    "write": lambda: open("%s", "w"), "descriptor": lambda: os.open("%s", os.O_CREAT | os.O_WRONLY),
    "secret": lambda: open("/etc/passwd"), "socket": lambda: socket.socket(),
    "program": lambda: subprocess.run(["true"]),
    "shell": lambda: os.system("true"), "fork": lambda: os.fork(), "kill": lambda: os.kill(os.getppid(), 0),
}
def read(data, *, declared, most_chars):
    said = []
    for name, deed in DEEDS.items():
        try:
            deed()
            said.append(name + " done")
        except PermissionError:
            said.append(name + " refused")
    return Parsed(text=", ".join(said))
"""


async def test_a_parser_opens_no_socket_writes_no_file_and_starts_no_program(tmp_path, monkeypatch):
    here = Path(process.__file__).parent
    shutil.copytree(here, tmp_path / "vectorstore/parsing")
    shutil.copytree(here.parents[1] / "kernel", tmp_path / "kernel")
    (tmp_path / "vectorstore/__init__.py").touch()
    written = tmp_path / "written"
    (tmp_path / "vectorstore/parsing/readers/probe.py").write_text(PROBE.replace("%s", str(written)))
    monkeypatch.setattr(process, "_path", lambda: [str(tmp_path)])
    said = (await process.read(b"", reader="probe", declared="")).text
    assert said == ", ".join(
        f"{deed} refused" for deed in ("write", "descriptor", "secret", "socket", "program", "shell", "fork", "kill")
    )
    assert not written.exists()
