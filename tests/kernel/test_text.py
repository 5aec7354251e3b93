"""Whatever comes in, what goes on is text that PostgreSQL and UTF-8 accept, and nothing else of it changes."""

from hypothesis import given
from hypothesis import strategies as st

from kernel.text import StorableStream, storable

#: Any characters, with those that make trouble coming often.
CHARACTERS = st.one_of(
    st.characters(codec=None), st.sampled_from(["\0", "\ud83d", "\ude00", "\ud800", "\udfff", "😀", "a", "\ufffd"])
)
TEXTS = st.text(CHARACTERS, max_size=40)


@given(TEXTS)
def test_the_result_is_utf8_without_nul(text: str) -> None:
    assert "\0" not in storable(text)
    storable(text).encode()


@given(TEXTS)
def test_a_second_time_changes_nothing(text: str) -> None:
    assert storable(storable(text)) == storable(text)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_good_text_is_untouched(text: str) -> None:
    assert storable(text) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_text_in_surrogate_pairs_is_joined(text: str) -> None:
    halves = "".join(map(chr, memoryview(text.encode("utf-16-le")).cast("H")))
    assert storable(halves) == text


@given(TEXTS)
def test_only_what_cannot_be_stored_is_replaced(text: str) -> None:
    def kept(value: str) -> list[str]:
        return [
            one for one in value if one not in "\0\ufffd" and not "\ud800" <= one <= "\udfff" and one < "\U00010000"
        ]

    assert kept(storable(text)) == kept(text)


@given(st.lists(TEXTS, max_size=8))
def test_a_stream_in_any_pieces_gives_the_same_text(pieces: list[str]) -> None:
    stream = StorableStream()
    out = [stream.feed(piece) for piece in pieces]
    for piece in out:
        piece.encode()
    assert "".join(out) + stream.close() == storable("".join(pieces))
    assert stream.close() == ""


def test_a_half_that_waits_is_not_held_longer_than_needed() -> None:
    stream = StorableStream()
    assert stream.feed("a\ud83d") == "a"
    assert stream.feed("\ude00b") == "😀b"
    assert stream.feed("\ud83d") == ""
    assert stream.feed("c") == "\ufffdc"
