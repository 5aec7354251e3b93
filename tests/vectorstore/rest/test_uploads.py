"""Uploads over REST, at a real server: what is taken in, what is refused, and bodies that lie about their length."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from django.conf import settings

from kernel import database
from kernel.conf import config
from tests.conftest import Person
from tests.support.server import Server
from tests.vectorstore.rest.conftest import TEXT, Place
from vectorstore import ingestion
from vectorstore.models import Document, IngestJob

HERE = "/collections/default/documents"


def send(place: Place, *files: tuple[str, bytes], who: str = "member", **form: Any) -> list[dict[str, Any]]:
    parts = [("files", (name, content, "application/octet-stream")) for name, content in files]
    response = place.ask(who, "POST", HERE, files=parts, data=form)
    assert response.status_code == 202, response.text
    found: list[dict[str, Any]] = response.json()["documents"]
    return found


async def test_files_are_taken_in_each_with_its_own_outcome(place: Place) -> None:
    made = send(place, ("a.md", TEXT.encode()), ("b.exe", b"MZ\x90\x00" + b"\x00" * 200), metadata='{"year": 2026}')
    assert [(each["name"], each["outcome"]) for each in made] == [("a.md", "queued"), ("b.exe", "refused")]
    assert made[0]["document"]["source"] == "a.md"
    assert (made[1]["document"], made[1]["code"]) == (None, "not_text")
    assert made[1]["message"]
    job = await database.run(IngestJob.objects.get, document_id=made[0]["document"]["id"])
    assert job.content is not None
    assert (bytes(job.content), job.metadata) == (TEXT.encode(), {"year": 2026})
    assert job.requested_by_id == place.people["member"].user.pk


async def test_the_same_file_is_one_document_however_often_it_comes(place: Place) -> None:
    first = send(place, ("a.md", b"one text"), ("a.md", b"one text"))
    again = send(place, ("a.md", b"one text"))
    assert [each["outcome"] for each in (*first, *again)] == ["queued", "in_progress", "in_progress"]
    assert len({each["document"]["id"] for each in (*first, *again)}) == 1


async def test_two_clients_with_the_same_file_at_once_make_one_document(place: Place) -> None:
    with ThreadPoolExecutor(6) as threads:
        each = list(threads.map(lambda _: send(place, ("a.md", b"one text"))[0], range(6)))
    assert len({one["document"]["id"] for one in each}) == 1
    assert sorted(one["outcome"] for one in each) == ["in_progress"] * 5 + ["queued"]
    assert await database.run(Document.objects.filter(workspace_id=place.workspace).count) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("manuals/x200/warranty.md", "manuals/x200/warranty.md"),
        ("../../etc/passwd", "etc/passwd"),
        ("C:\\papers\\.\\a.md", "C:/papers/a.md"),
        ("//a///b.md", "a/b.md"),
        ("in\r\nvoice\u202efdp.md", "invoicefdp.md"),
    ],
)
async def test_a_path_is_a_name_and_leads_nowhere(place: Place, path: str, source: str) -> None:
    [made] = send(place, ("a.md", b"some text"), paths=path)
    assert made["document"]["source"] == source


async def test_names_that_are_none_are_refused(place: Place) -> None:
    made = send(place, ("a.md", b"a"), ("b.md", b"b"), ("c.md", b"c"), paths=["..", "x" * 1001, "c.md"])
    assert [each["outcome"] for each in made] == ["refused", "refused", "queued"]
    assert {each["code"] for each in made[:2]} == {"invalid"}


async def test_a_file_that_is_too_large_doesnt_keep_the_others(place: Place) -> None:
    large = b"x" * (config().vector_store.max_document_bytes + 1)
    made = send(place, ("large.txt", large), ("small.txt", b"small"))
    assert [(each["outcome"], each["code"]) for each in made] == [("refused", "too_large"), ("queued", "")]


async def test_a_text_that_is_too_long_for_json_is_told_how_it_gets_in(place: Place) -> None:
    text = "word " * (settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 5)
    refused = place.ask("member", "POST", f"{HERE}/text", json={"source": "long.txt", "text": text})
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    for way in (f"{settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes", "as a file", "DATA_UPLOAD_MAX_MEMORY_SIZE"):
        assert way in refused.json()["message"]
    [made] = send(place, ("long.txt", text.encode()))
    assert made["outcome"] == "queued"


async def test_a_form_that_makes_no_sense_is_refused(place: Place) -> None:
    file = [("files", ("a.md", b"a"))]
    wrong: list[dict[str, Any]] = [
        {"files": [("other", ("a.md", b"a"))]},
        {"json": {}},
        {"files": file, "data": {"metadata": "[1]"}},
    ]
    for more in wrong:
        assert place.ask("member", "POST", HERE, **more).status_code == 422, more
    assert place.ask("member", "POST", HERE, files=file, data={"paths": ["a", "b"]}).status_code == 422
    many = place.ask("member", "POST", HERE, files=file * 101)
    assert (many.status_code, many.json()["code"]) == (413, "too_large")
    assert await database.run(Document.objects.filter(workspace_id=place.workspace).count) == 0


async def test_who_may_add(place: Place) -> None:
    secret = place.collection("secret", access="restricted")
    file = [("files", ("a.md", b"a"))]
    for who, default, restricted in (
        ("admin", 202, 202),
        ("member", 202, 404),
        ("viewer", 403, 404),
        ("other", 404, 404),
    ):
        assert place.ask(who, "POST", HERE, files=file).status_code == default, who
        assert place.ask(who, "POST", f"/collections/{secret}/documents", files=file).status_code == restricted, who


async def test_texts_and_urls_are_taken_in(place: Place) -> None:
    body: dict[str, Any] = {"source": "notes/a", "text": TEXT, "markdown": True, "metadata": {"a": 1}}
    made = place.ask("member", "POST", f"{HERE}/text", json=body)
    assert made.status_code == 202, made.text
    assert made.json()["documents"][0]["document"]["source"] == "notes/a"
    url = "https://example.org/manual.pdf"
    [entry] = place.ask("member", "POST", f"{HERE}/url", json={"url": url}).json()["documents"]
    assert (entry["outcome"], entry["document"]["source"]) == ("queued", url)
    for wrong in ("ftp://example.org/a", "https://user:pass@example.org/", "file:///etc/passwd"):
        assert place.ask("member", "POST", f"{HERE}/url", json={"url": wrong}).status_code == 422, wrong


async def test_a_signed_url_is_no_title(place: Place) -> None:
    url = "https://files.example.org/manual.pdf"
    for query in ("?X-Amz-Signature=5ec2e7&token=70c3a", "#access_token=70c3a"):
        [entry] = place.ask("member", "POST", f"{HERE}/url", json={"url": url + query}).json()["documents"]
        row = await database.run(Document.objects.get, pk=entry["document"]["id"])
        assert (row.source, row.title, str(row)) == (url + query, url, url)
        assert entry["document"]["title"] == url
    named = {"url": f"{url}?page=2", "title": "The manual"}
    [entry] = place.ask("member", "POST", f"{HERE}/url", json=named).json()["documents"]
    assert entry["document"]["title"] == "The manual"


def raw(server: Server, person: Person, path: str, headers: dict[str, str], *parts: bytes) -> bytes:
    """Send exactly this, and read the answer to its end."""
    lines = {"Host": "localhost", "Connection": "close", "Authorization": f"Bearer {person.token}", **headers}
    head = f"POST /api/v1{path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.sendall(head.encode() + b"\r\n")
        try:
            for part in parts:
                line.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered already, and reads no more
        answer = b""
        with suppress(ConnectionResetError):  # it closes on the rest of what was sent
            while piece := line.recv(4096):
                answer += piece
        return answer


async def test_a_body_without_a_length_is_bounded(place: Place) -> None:
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    number = 10 * config().vector_store.max_document_bytes // 0x100000 + 2
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "multipart/form-data; boundary=b"}
    answer = raw(place.server, place.people["member"], HERE, headers, *[chunk] * number)
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_declared_length_that_is_too_large_is_refused_before_the_body(place: Place) -> None:
    headers = {"Content-Length": "99999999999", "Content-Type": "multipart/form-data; boundary=b"}
    assert raw(place.server, place.people["member"], HERE, headers).startswith(b"HTTP/1.1 413")


async def test_a_form_that_arrives_slowly_is_still_read(place: Place) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="slow.txt"\r\n\r\nsome text\r\n--b--\r\n'
    headers = {"Content-Length": str(len(form)), "Content-Type": "multipart/form-data; boundary=b"}
    answer = raw(place.server, place.people["member"], HERE, headers, *(form[n : n + 1] for n in range(len(form))))
    assert answer.startswith(b"HTTP/1.1 202")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["documents"][0]["outcome"] == "queued"


async def test_the_encoding_that_a_file_declares_is_used(place: Place) -> None:
    content = "保証は二年です".encode("shift_jis")
    parts = [("files", ("warranty.txt", content, "text/plain; charset=Shift_JIS"))]
    answer = place.ask("member", "POST", HERE, files=parts)
    assert answer.status_code == 202, answer.text
    made = answer.json()["documents"][0]
    job = await database.run(IngestJob.objects.get, document_id=made["document"]["id"])
    assert (await ingestion.work(job.pk)).outcome == "added"
    assert place.get(f"/documents/{made['document']['id']}/text")["text"] == "保証は二年です"


async def test_an_empty_text_is_refused_and_an_empty_title_is_none(place: Place) -> None:
    def add(**body: Any) -> Any:
        return place.ask("member", "POST", f"{HERE}/text", json={"source": "note"} | body)

    assert add(text=" \n").status_code == 422
    made = add(text="a text", title="  ").json()["documents"][0]["document"]
    assert made["title"] == "note"
    assert place.ask("member", "PATCH", f"/documents/{made['id']}", json={"title": "  "}).status_code == 422
    assert place.get(f"/documents/{made['id']}")["title"] == "note"
