"""Whatever is put on the wire gets a typed answer, and the socket lives on unless its framing is broken."""

import json
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from chat import protocol
from tests.conftest import Person
from tests.support.raw import Raw
from tests.support.server import Server

FRAME_LIMIT = 65_536
TEXT_LIMIT = 32_000
SERVER_LIMIT = 1_048_576


def ping_of(size: int) -> str:
    """A ping command, padded with spaces to so many bytes."""
    frame = '{"type": "ping"}'
    return frame + " " * (size - len(frame))


async def test_a_frame_of_exactly_the_limit_is_taken(raw: Raw) -> None:
    assert (await raw.ask(ping_of(FRAME_LIMIT)))["type"] == "pong"


@pytest.mark.parametrize("size", [FRAME_LIMIT + 1, 5 * FRAME_LIMIT, SERVER_LIMIT])
async def test_a_frame_over_the_limit_gets_too_large_and_a_close(raw: Raw, size: int) -> None:
    answer = await raw.ask(ping_of(size))
    assert answer["code"] == "too_large"
    assert str(FRAME_LIMIT) in answer["message"]
    assert await raw.closed() == protocol.Close.TOO_LARGE


async def test_the_limit_is_in_bytes_not_in_characters(raw: Raw) -> None:
    text = "é" * (FRAME_LIMIT // 2)
    answer = await raw.ask(f'{{"type": "message.send", "id": "a", "text": "{text}"}}')
    assert answer["code"] == "too_large"
    assert await raw.closed() == protocol.Close.TOO_LARGE


async def test_commands_behind_an_oversized_frame_are_not_carried_out(raw: Raw) -> None:
    await raw.send(ping_of(FRAME_LIMIT + 1))
    await raw.send({"type": "message.send", "id": "late", "text": "not this one"})
    assert (await raw.next())["code"] == "too_large"
    assert await raw.closed() == protocol.Close.TOO_LARGE


@pytest.mark.parametrize("size", [SERVER_LIMIT + 1, 20 * SERVER_LIMIT])
async def test_a_frame_over_the_servers_own_limit_closes_with_1009(raw: Raw, size: int) -> None:
    with suppress(ConnectionClosed):  # before the frame was out
        await raw.send(ping_of(size))
    assert await raw.closed() == 1009


async def test_a_frame_that_only_announces_too_much_closes_with_1009(raw: Raw) -> None:
    raw.put(b"\x81\xff" + struct.pack("!Q", 100 * SERVER_LIMIT) + b"\0\0\0\0")
    assert await raw.closed() == 1009


async def test_fragments_that_grow_over_the_servers_own_limit_close_with_1009(raw: Raw) -> None:
    part = b" " * (SERVER_LIMIT // 4)
    raw.put_text(part, fin=False)
    for _ in range(4):
        raw.put(Frame(Opcode.CONT, part, fin=False).serialize(mask=True, extensions=[]))
    assert await raw.closed() == 1009


async def test_a_binary_frame_is_refused_and_the_socket_lives(raw: Raw) -> None:
    for payload in (b"", b'{"type": "ping"}', b"\xff\x00", b"x" * (2 * FRAME_LIMIT)):
        assert (await raw.ask(payload))["code"] == "binary_frame"
    assert await raw.alive()


@pytest.mark.parametrize("payload", [b"\xff", b'{"type": "p\xc3ing"}', b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
async def test_invalid_utf8_closes_with_1007(raw: Raw, payload: bytes) -> None:
    raw.put_text(payload)
    assert await raw.closed() == 1007


async def test_a_message_in_fragments_is_one_frame(raw: Raw) -> None:
    assert (await raw.ask(list('{"type": "ping"}')))["type"] == "pong"
    snowman = '{"type": "message.send", "id": "ü", "text": "☃"}'.encode()
    raw.put_text(snowman[:33], fin=False)
    raw.put(Frame(Opcode.CONT, snowman[33:], fin=True).serialize(mask=True, extensions=[]))
    assert (await raw.next("error"))["code"] == "invalid_frame"
    assert await raw.alive()


async def test_tiny_fragments_by_the_thousand_are_taken(raw: Raw) -> None:
    assert (await raw.ask(list(ping_of(5000))))["type"] == "pong"
    first, *rest = ping_of(50_000).encode()
    parts = [Frame(Opcode.TEXT, bytes([first]), fin=False)]
    parts += [Frame(Opcode.CONT, bytes([one]), fin=False) for one in rest]
    parts += [Frame(Opcode.CONT, b"", fin=False)] * 1000 + [Frame(Opcode.CONT, b"")]
    raw.put(b"".join(part.serialize(mask=True, extensions=[]) for part in parts))
    assert (await raw.next())["type"] == "pong"


NO_COMMANDS: dict[str, str] = {
    "empty": "",
    "spaces": "   ",
    "no_json": "hello",
    "half": '{"type": "ping"',
    "two": '{"type": "ping"}{"type": "ping"}',
    "array": "[]",
    "null": "null",
    "number": "1",
    "string": '"ping"',
    "no_type": "{}",
    "type_null": '{"type": null}',
    "type_number": '{"type": 1}',
    "type_unknown": '{"type": "message.burn"}',
    "type_of_an_event": '{"type": "welcome"}',
    "type_in_capitals": '{"type": "PING"}',
    "type_long": json.dumps({"type": "x" * 60_000}),
    "extra_field": '{"type": "ping", "more": 1}',
    "extra_field_long": json.dumps({"type": "ping", "x" * 60_000: 1}),
    "missing_text": '{"type": "message.send", "id": "a"}',
    "missing_id": '{"type": "message.send", "text": "a"}',
    "text_null": '{"type": "message.send", "id": "a", "text": null}',
    "text_number": '{"type": "message.send", "id": "a", "text": 1}',
    "text_list": '{"type": "message.send", "id": "a", "text": ["a"]}',
    "id_number": '{"type": "message.send", "id": 1, "text": "a"}',
    "id_empty": '{"type": "message.send", "id": "", "text": "a"}',
    "id_long": json.dumps({"type": "message.send", "id": "a" * 65, "text": "a"}),
    "id_odd": json.dumps({"type": "message.send", "id": "a b", "text": "a"}),
    "id_nul": json.dumps({"type": "message.send", "id": "a\0", "text": "a"}),
    "id_newline": json.dumps({"type": "message.send", "id": "a\n", "text": "a"}),
    "id_surrogate": '{"type": "message.send", "id": "\\ud800", "text": "a"}',
    "stop_no_uuid": '{"type": "turn.stop", "message_id": "1"}',
    "seen_negative": '{"type": "seen", "frames": -1}',
    "seen_fraction": '{"type": "seen", "frames": 1.5}',
    "seen_too_big": '{"type": "seen", "frames": 9007199254740993}',
    "seen_no_uuid": '{"type": "seen", "streams": {"a": 1}}',
    "seen_list": '{"type": "seen", "streams": []}',
    "nan": '{"type": "seen", "frames": NaN}',
    "infinity": '{"type": "seen", "frames": -Infinity}',
    "overflow": '{"type": "seen", "frames": 1e400}',
    "digits": '{"type": "seen", "frames": ' + "9" * 10_000 + "}",
    "digits_extra": '{"type": "ping", "n": ' + "9" * 10_000 + "}",
    "digits_beside_surrogate": '{"type": "ping", "n": "\\ud800", "m": ' + "9" * 10_000 + "}",
    "deep_array": "[" * 60_000,
    "deep_closed": "[" * 30_000 + "]" * 30_000,
    "deep_object": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "deep_field": '{"type": "ping", "x": ' + "[" * 30_000 + "]" * 30_000 + "}",
    "deep_streams": '{"type": "seen", "streams": ' + '{"a":' * 10_000 + "1" + "}" * 10_001,
    "deep_beside_surrogate": '{"type": "ping", "s": "\\ud800", "x": ' + "[" * 30_000 + "]" * 30_000 + "}",
    "many_keys": json.dumps({"type": "ping"} | {f"k{n}": n for n in range(4000)}),
    "byte_order_mark": '\ufeff{"type": "ping"}',
    "nul": "\0",
    "comment": '{"type": "ping"} // hello',
    "single_quotes": "{'type': 'ping'}",
}


@pytest.mark.parametrize("name", NO_COMMANDS)
async def test_what_is_no_command_gets_a_short_typed_error(raw: Raw, name: str) -> None:
    answer = await raw.ask(NO_COMMANDS[name])
    assert answer["type"] == "error"
    assert answer["code"] == "invalid_frame"
    assert len(answer["message"]) < 400
    assert await raw.alive()


async def test_a_frame_nested_ten_to_the_five_deep_is_over_the_limit(raw: Raw) -> None:
    answer = await raw.ask("[" * 100_000)
    assert answer["code"] == "too_large"
    assert await raw.closed() == protocol.Close.TOO_LARGE


async def test_of_duplicate_keys_one_wins_and_nothing_breaks(raw: Raw) -> None:
    assert (await raw.ask('{"type": "ping", "type": "ping"}'))["type"] in ("pong", "error")
    answer = await raw.ask('{"type": "message.send", "id": "one", "id": "two", "text": "a", "text": "b"}')
    assert answer["id"] in ("one", "two")
    assert await raw.alive()


async def test_an_error_names_the_command_it_belongs_to(raw: Raw) -> None:
    answer = await raw.ask({"type": "message.send", "id": "mine-1"})
    assert (answer["code"], answer["id"]) == ("invalid_frame", "mine-1")
    answer = await raw.ask({"type": "message.send", "id": "mine-2", "text": " \n\t "})
    assert (answer["code"], answer["id"]) == ("empty_text", "mine-2")


async def test_an_error_does_not_echo_what_was_sent(raw: Raw) -> None:
    answer = await raw.ask({"type": "message.send", "id": "sk-secret value", "text": 5})
    assert "sk-secret" not in json.dumps(answer)


@pytest.mark.parametrize("text", ["", " ", "\n\t\r ", "\u2003\u3000"])
async def test_a_message_without_text_is_refused(raw: Raw, text: str) -> None:
    assert (await raw.ask({"type": "message.send", "id": "e", "text": text}))["code"] == "empty_text"


async def test_the_text_limit_is_in_characters_and_exact(raw: Raw) -> None:
    answer = await raw.ask({"type": "message.send", "id": "over", "text": "a" * (TEXT_LIMIT + 1)})
    assert (answer["code"], answer["id"]) == ("too_large", "over")
    answer = await raw.ask({"type": "message.send", "id": "fits", "text": "a" * TEXT_LIMIT})
    assert answer["type"] == "ack"


UNUSUAL: dict[str, tuple[str, str]] = {
    "nul": ('"a\\u0000b"', "a\ufffdb"),
    "only_nul": ('"\\u0000"', "\ufffd"),
    "high_surrogate": ('"a\\ud83d"', "a\ufffd"),
    "low_surrogate": ('"\\uDE00 b"', "\ufffd b"),
    "surrogates_swapped": ('"\\ude00\\ud83d"', "\ufffd\ufffd"),
    "pair": ('"\\ud83d\\ude00"', "😀"),
    "pair_and_half": ('"\\ud83d\\ude00\\ud83d"', "😀\ufffd"),
    "escaped_backslash": ('"\\\\ud83d"', "\\ud83d"),
    "emoji": ('"👩‍👩‍👧‍👦 🏳️‍🌈"', "👩‍👩‍👧‍👦 🏳️‍🌈"),
    "right_to_left": ('"שלום \u202e مرحبا"', "שלום \u202e مرحبا"),
    "combining": ('"Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢"', "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢"),
    "noncharacter": ('"\uffff \U0010ffff"', "\uffff \U0010ffff"),
    "control": ('"\\u0007\\u001b[31m"', "\x07\x1b[31m"),
    "markup": ('"<script>alert(1)</script>{{x}}{0.__class__}%s"', "<script>alert(1)</script>{{x}}{0.__class__}%s"),
}


@pytest.mark.parametrize("name", UNUSUAL)
async def test_unusual_text_is_stored_and_answered(server: Server, person: Person, name: str) -> None:
    written, stored = UNUSUAL[name]
    async with person.client(server, person.new_session(server)) as client:
        await client.send_raw(f'{{"type": "message.send", "id": "u", "text": {written}}}')
        ack = await client.wait_frame(lambda frame: frame.get("id") == "u")
        assert ack["type"] == "ack", ack
        answer = await client.answer(ack["answer_id"])
        assert answer["status"] == "complete", answer
        assert client.messages[ack["message_id"]]["content"] == stored
        # The scripted model repeats what it was asked.
        assert stored in answer["content"]


# Generated frames ----------------------------------------------------------------------------------------------------

VALID: list[dict[str, Any]] = [
    {"type": "hello", "seq": 0, "streams": {}},
    {"type": "message.send", "id": "fuzz", "text": "generated"},
    {"type": "turn.stop", "message_id": str(uuid4()), "id": "stop"},
    {"type": "seen", "streams": {str(uuid4()): 1}, "frames": 1},
    {"type": "ping"},
]
ODD: list[Any] = [
    None, True, -1, 0.5, 1e308, float("nan"), float("inf"), 2**53, 2**64, 10**400, "", "\0", "\ud800", "\udfff x",
    "a" * 5000, "☃" * 50, [], {}, [[[[]]]], {"type": "ping"}, {"": ""}, ["message.send"], str(uuid4()), "hello",
]  # fmt: skip


def mutated(chance: random.Random) -> str:
    """A frame that is nearly right, or not at all."""
    shapes: list[Callable[[random.Random], str]] = [_fields, _fields, _fields, _characters, _characters, _value, _noise]
    return chance.choice(shapes)(chance)


def _fields(chance: random.Random) -> str:
    frame = dict(chance.choice(VALID))
    for _ in range(chance.randint(1, 3)):
        key = chance.choice([*frame, "extra", "id", "text", "token", "streams", "\0"])
        if chance.random() < 0.3:
            frame.pop(key, None)
        else:
            frame[key] = chance.choice(ODD)
    return json.dumps(frame, ensure_ascii=chance.random() < 0.5 or "\\ud" in json.dumps(frame))


def _characters(chance: random.Random) -> str:
    frame = list(json.dumps(chance.choice(VALID)))
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(frame))
        frame[place] = chance.choice(
            ["", '"', "\\", "{", "}", "[", ",", ":", "\\u", "\0", "é", "9", "-", frame[place] * 2]
        )
    return "".join(frame)


def _value(chance: random.Random, depth: int = 0) -> str:
    def value(depth: int) -> Any:
        if depth > 4 or chance.random() < 0.4:
            return chance.choice(ODD)
        if chance.random() < 0.5:
            return [value(depth + 1) for _ in range(chance.randint(0, 4))]
        return {chance.choice(["type", "id", "text", "x", "streams"]): value(depth + 1) for _ in range(3)}

    return json.dumps(value(depth))


def _noise(chance: random.Random) -> str:
    if chance.random() < 0.2:
        return chance.choice('[{"') * chance.randint(1, 50_000)
    return "".join(chr(chance.choice([chance.randint(0, 127), chance.randint(128, 0xD7FF)])) for _ in range(60))


@pytest.mark.parametrize("seed", [1, 2])
async def test_of_thousands_of_generated_frames_each_gets_a_typed_answer(raw: Raw, seed: int) -> None:
    chance = random.Random(seed)
    events = {kind.__struct_config__.tag for kind in protocol.EVENTS}
    for _ in range(24):
        for _ in range(50):
            await raw.send(mutated(chance))
        await raw.send({"type": "seen", "frames": raw.received})
        await raw.send({"type": "turn.stop", "message_id": str(uuid4()), "id": "end-of-batch"})
        while True:
            frame = await raw.next()
            assert frame["type"] in events
            if frame["type"] == "error":
                assert frame["code"] in protocol.ERROR_CODES
                assert frame["code"] != "internal"
                if frame.get("id") == "end-of-batch":
                    break
    assert await raw.alive()
