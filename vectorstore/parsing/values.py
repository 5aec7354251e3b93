"""What reading a file gives. Used on both sides of the pipe: no Django here."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A document's text. `markdown`: its `#` headings are ones, and passages are cut along them.

    `metadata` can be written as JSON. `kind` is always there; a PDF has `pages`, the places in `text` (in characters)
    where its pages begin; an e-mail has `attachments`, the names of what came along and is not in the text.
    """

    text: str
    title: str = ""
    markdown: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)


class Unparsable(Exception):
    """Why a file can't be read: a code of vectorstore.errors, and the rest of a sentence that begins with its name."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(code, reason)
