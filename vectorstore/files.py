"""Files of this machine as bytes. What they are is vectorstore.parsing's to say."""

import stat
from pathlib import Path

from vectorstore.errors import DocumentTooLarge, Unreadable


def read_bytes(path: Path, *, source: str, max_bytes: int) -> bytes:
    """The file's bytes. Raises Unreadable or DocumentTooLarge, which name it."""
    try:
        # Asked first: opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unreadable(f"{source} is not a regular file.")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise Unreadable(f"{source} can't be read: {error.strerror or 'unknown error'}.") from error
    if len(data) > max_bytes:
        raise DocumentTooLarge(
            f"{source} has more than {max_bytes} bytes; raise VECTOR_STORE['MAX_DOCUMENT_BYTES'] or split it."
        )
    return data
