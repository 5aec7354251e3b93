"""A file is a document, or an error that names it and says why."""

import os

import pytest

from kernel.errors import TooLarge
from vectorstore.errors import NotText, Unreadable
from vectorstore.files import read


def reading(path, data: bytes, *, max_bytes: int = 1000):
    path.write_bytes(data)
    return read(path, source=path.name, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("é\r\nnext\rlast".encode(), "é\nnext\nlast"),
        ("\ufeffmarked".encode(), "marked"),
        ("\ufeffwide é".encode("utf-16-le"), "wide é"),
        (b"one \x00 zero in a long enough text", "one \ufffd zero in a long enough text"),
        (b"", ""),
    ],
)
def test_text_in_any_of_its_forms_is_read(tmp_path, data, text):
    assert reading(tmp_path / "a.txt", data).text == text


def test_markdown_is_known_by_its_name(tmp_path):
    assert reading(tmp_path / "A.MD", b"# T").markdown
    plain = reading(tmp_path / "notes.txt", b"# T")
    assert (plain.markdown, plain.title) == (False, "notes")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"%PDF-1.7 all ascii", "a PDF"),
        (b"PK\x03\x04....", "ZIP"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (bytes(range(256)), "binary"),
        (b"\x00\x01\x02\x03" * 50, "binary"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, data, why):
    with pytest.raises(NotText, match=rf"odd\.txt is .*{why}"):
        reading(tmp_path / "odd.txt", data)


def test_another_encoding_is_named_with_its_place(tmp_path):
    with pytest.raises(Unreadable, match=r"latin\.txt is not UTF-8 text \(byte 0xE9 at position 3\)"):
        reading(tmp_path / "latin.txt", b"caf\xe9")
    with pytest.raises(Unreadable, match=r"cut\.txt is not UTF-8"):
        reading(tmp_path / "cut.txt", b"\xff\xfea")


def test_too_large_a_file_is_refused_without_reading_it_all(tmp_path):
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooLarge, match=r"huge\.txt has more than 1000 bytes"):
        read(tmp_path / "huge.txt", source="huge.txt", max_bytes=1000)


def test_what_is_no_regular_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(Unreadable, match="not a regular file"):
            read(path, source="pipe", max_bytes=10)


def test_a_broken_link_says_so(tmp_path):
    (tmp_path / "link.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Unreadable, match=r"link\.txt can't be read: No such file"):
        read(tmp_path / "link.txt", source="link.txt", max_bytes=10)
