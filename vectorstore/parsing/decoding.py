"""Bytes as text. What can't be told apart is refused: a wrong guess would be indexed as if it were right."""

import codecs
import re

from vectorstore.parsing.values import Unparsable

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    # Before UTF-16's, which is the beginning of this one.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
#: What a document may declare. Python knows codecs that are no encodings, and some that take quadratic time.
_MANY_BYTES = {
    *("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "shift_jis", "cp932", "euc_jp", "iso2022_jp"),
    *("gb2312", "gbk", "gb18030", "big5", "big5hkscs", "euc_kr", "cp949"),
}
_ONE_BYTE = {
    *("ascii", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "cp437", "cp850", "cp852", "cp866", "cp874", "tis-620"),
    *(f"cp125{number}" for number in range(9)),
    *(f"iso8859-{number}" for number in range(1, 17)),
}
#: As browsers do: who declares Latin-1 means the Windows code page, which has quotes and dashes where Latin-1 has none.
_MEANT = {"iso8859-1": "cp1252", "ascii": "cp1252"}
#: Bytes looked at to tell a text from something else, and the share of control characters that a text may have there.
_SAMPLE = 8192
_MOST_CONTROL = 0.1
#: A Western text has letters beyond ASCII here and there; one in another script has them in rows.
_MOST_HIGH = 0.3
_HIGH = bytes(range(128, 256))
_FOREIGN_SCRIPT = re.compile(rb"[\xc0-\xff]{5}")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f\x81\x8d\x8f\x90\x9d]")


def decoded(data: bytes, *, declared: str = "", guess: bool = True) -> str:
    """The text of `data`: by its byte order mark, else UTF-8 or `declared`, else cp1252 if it looks like that.

    Raises Unparsable: `not_text` for binary data, `unreadable` for an encoding that can't be told.
    """
    mark = next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), None)
    text = _strict(data, mark) if mark else _unmarked(data, declared, guess=guess)
    sample = text[:_SAMPLE]
    control = sum(1 for character in sample if character < " " and character not in "\t\n\r\f")
    if control > _MOST_CONTROL * len(sample):
        raise Unparsable("not_text", "is a binary file")
    return text


def _unmarked(data: bytes, declared: str, *, guess: bool) -> str:
    codec = _codec(declared)
    # UTF-8 can't be met by chance, so it stands before a one-byte encoding, which fits anything.
    for name in [codec, "utf-8"] if codec in _MANY_BYTES else ["utf-8", codec]:
        if name:
            try:
                return data.decode(name)
            except UnicodeDecodeError:
                continue
    return data.decode("cp1252") if guess and _western(data) else _strict(data, "utf-8")


def _strict(data: bytes, codec: str) -> str:
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        if codec == "utf-8" and b"\x00" in data[:_SAMPLE]:
            raise Unparsable("not_text", "is a binary file") from error
        name = "UTF-8" if codec.startswith("utf-8") else codec.upper()
        raise Unparsable(
            "unreadable",
            f"is not {name} text (byte 0x{data[min(error.start, len(data) - 1)]:02X} at position {error.start});"
            " save it as UTF-8 and try again",
        ) from error


def _codec(declared: str) -> str:
    """Python's name of a declared encoding; empty if there is none or it isn't one of ours."""
    try:
        name = codecs.lookup(declared.strip()[:40]).name if declared.strip() else ""
    except (LookupError, ValueError):
        return ""
    name = _MEANT.get(name, name)
    return name if name in _MANY_BYTES or name in _ONE_BYTE else ""


def _western(data: bytes) -> bool:
    high = len(data) - len(data.translate(None, _HIGH))
    return high <= _MOST_HIGH * len(data) and not _CONTROL.search(data) and not _FOREIGN_SCRIPT.search(data)
