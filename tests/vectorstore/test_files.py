"""A file of this machine is bytes, or an error that names it and says why."""

import os

import pytest

from kernel.errors import TooLarge
from vectorstore.errors import Unreadable
from vectorstore.files import read_bytes


def test_a_file_is_read_up_to_the_bound(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 10)
    assert read_bytes(path, source="a.txt", max_bytes=10) == b"x" * 10
    with pytest.raises(TooLarge, match=r"a\.txt has more than 9 bytes"):
        read_bytes(path, source="a.txt", max_bytes=9)


def test_what_is_no_file_says_so_and_does_not_wait(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(Unreadable, match="pipe is not a regular file"):
        read_bytes(pipe, source="pipe", max_bytes=10)
    with pytest.raises(Unreadable, match=r"gone can't be read: No such file"):
        read_bytes(tmp_path / "gone", source="gone", max_bytes=10)
