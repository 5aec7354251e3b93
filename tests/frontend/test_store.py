"""The client's state, fed with frames in every order that a network makes of them."""

import random
from typing import Any

from tests.frontend.conftest import OpenTab

FEED = """async (frames) => {
    const {Store} = await import("/static/frontend/store.js");
    const store = new Store();
    const gaps = frames.map((frame) => store.apply(frame).gap);
    return {text: store.streams.get("a")?.text, seq: store.seq, gaps, cursor: store.cursor(),
            shown: store.ordered().map((row) => [row.id, store.textOf(row)])};
}"""

TEXT = "Grüße, 世界 🙂, naïve — fin. " * 8


def row(seq: int, **changes: Any) -> dict[str, Any]:
    message = {
        "id": "a",
        "role": "ASSISTANT",
        "content": "",
        "status": "pending",
        "order": 2,
        "seq": seq,
        "sources": [],
    }
    return {"type": "message", "seq": seq, "message": {**message, "client_id": None, "deleted": False, **changes}}


def delta(start: int, end: int) -> dict[str, Any]:
    """The characters from start to end as a frame, with offsets in bytes."""
    begin = len(TEXT[:start].encode())
    piece = TEXT[start:end]
    return {"type": "delta", "message_id": "a", "offset": begin, "end": begin + len(piece.encode()), "text": piece}


async def test_overlapping_and_repeated_deltas_show_each_character_once(open_tab: OpenTab) -> None:
    tab = await open_tab()
    chance = random.Random(7)
    for _ in range(40):
        frames, at = [row(1)], 0
        while at < len(TEXT):
            start = max(0, at - chance.randrange(6))
            end = min(len(TEXT), start + chance.randrange(1, 12))
            frames.append(delta(start, end))
            at = max(at, end)
        seen = await tab.page.evaluate(FEED, frames)
        assert seen["text"] == TEXT
        assert not any(seen["gaps"])
        assert seen["cursor"] == {"seq": 1, "streams": {"a": len(TEXT.encode())}}


async def test_a_missing_delta_is_noticed_and_not_papered_over(open_tab: OpenTab) -> None:
    tab = await open_tab()
    seen = await tab.page.evaluate(FEED, [row(1), delta(0, 5), delta(9, 12)])
    assert seen["gaps"] == [False, False, True]
    assert seen["text"] == TEXT[:5]


async def test_a_new_attempt_begins_its_text_anew_and_a_repeated_row_does_not(open_tab: OpenTab) -> None:
    tab = await open_tab()
    assert (await tab.page.evaluate(FEED, [row(1), delta(0, 5), row(1), delta(5, 9)]))["text"] == TEXT[:9]
    assert (await tab.page.evaluate(FEED, [row(1), delta(0, 5), row(3), delta(0, 4)]))["text"] == TEXT[:4]


async def test_the_final_row_replaces_the_stream_and_late_deltas_change_nothing(open_tab: OpenTab) -> None:
    tab = await open_tab()
    final = row(4, status="complete", content="whole")
    seen = await tab.page.evaluate(FEED, [row(1), delta(0, 5), final, delta(5, 9), row(1)])
    assert seen["shown"] == [["a", "whole"]]
    assert seen["cursor"] == {"seq": 4, "streams": {}}


async def test_deleted_rows_are_not_shown(open_tab: OpenTab) -> None:
    tab = await open_tab()
    seen = await tab.page.evaluate(
        FEED, [row(1, status="complete", content="x"), row(2, status="complete", deleted=True)]
    )
    assert seen["shown"] == []
