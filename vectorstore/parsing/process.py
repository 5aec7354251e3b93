"""The parent's side of a parser's process: starts it, feeds it, reads a bounded answer, and ends it in every case."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.util import find_spec
from logging import getLogger
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from kernel.conf import config
from kernel.errors import Busy
from vectorstore.parsing.values import Parsed, Unparsable

logger = getLogger(__name__)

_CHILD = Path(__file__).with_name("child.py")
#: What the readers import, and we ourselves: the folders that hold these are the child's path.
_PACKAGES = ("vectorstore", "pypdf", "selectolax", "cryptography")
#: Documents that may wait for a process, in this event loop.
_MOST_WAITING = 200
_TITLE = 500
_REASON = 300
_ERROR = 60
_PIECE = 65_536
#: What a character may take in JSON, and what stands around the text.
_BYTES_A_CHAR = 12
_AROUND = 1_000_000
_OUT_OF_TIME = {-signal.SIGALRM, -signal.SIGXCPU}


class _Answer(msgspec.Struct):
    """What a child says. It read bytes that may have been made to take it over, so it is not believed blindly."""

    text: str | None = None
    title: str = ""
    markdown: bool = False
    metadata: dict[str, Any] = {}
    code: str = "parse_failed"
    reason: str = ""
    #: The class of an exception that nobody expected, for the log.
    error: str = ""


class _Turns:
    """Who may run a process now, in one event loop."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(config().vector_store.parse_processes)
        self.waiting = 0


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


async def read(data: bytes, *, reader: str, declared: str) -> Parsed:
    """What the reader makes of `data`. Raises Unparsable, and Busy if too many documents wait for a process."""
    options = config().vector_store
    async with _turn():
        try:
            async with asyncio.timeout(options.parse_timeout):
                status, output = await _run(data, reader, declared)
        except TimeoutError as error:
            raise _too_slow(options.parse_timeout) from error
    if status in _OUT_OF_TIME:
        raise _too_slow(options.parse_timeout)
    return _parsed(output, status, reader)


@asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    turns = _turns.setdefault(asyncio.get_running_loop(), _Turns())
    if turns.waiting >= _MOST_WAITING:
        raise Busy("Too many documents wait to be read; try again shortly.", retry_after=5.0)
    turns.waiting += 1
    try:
        async with turns.free:
            yield
    finally:
        turns.waiting -= 1


async def _run(data: bytes, reader: str, declared: str) -> tuple[int, bytes]:
    """The exit status and the output of a child; it has ended when this returns or raises."""
    child = await asyncio.create_subprocess_exec(
        # Isolated and without site: no variable, no .pth and no sitecustomize has a word in it.
        *(sys.executable, "-I", "-S", str(_CHILD), _options(reader, declared)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # Our keys and addresses are in our environment. Where Python itself needs its libraries, it finds them.
        env={name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ},
        start_new_session=True,
    )
    try:
        feeding = asyncio.create_task(_feed(child, data))
        try:
            output = await _output(child)
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])
        return await child.wait(), output
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()


async def _feed(child: asyncio.subprocess.Process, data: bytes) -> None:
    assert child.stdin is not None
    # A child that ended early reads no more; what it said counts.
    with contextlib.suppress(ConnectionError):
        child.stdin.write(data)
        await child.stdin.drain()
    child.stdin.close()


async def _output(child: asyncio.subprocess.Process) -> bytes:
    assert child.stdout is not None
    most = config().vector_store.max_text_chars * _BYTES_A_CHAR + _AROUND
    output = bytearray()
    while piece := await child.stdout.read(_PIECE):
        output += piece
        if len(output) > most:
            raise Unparsable("parse_failed", "makes its parser write without end")
    return bytes(output)


def _options(reader: str, declared: str) -> str:
    options = config().vector_store
    return json.dumps(
        {
            "reader": reader,
            "declared": declared,
            "path": _path(),
            "parent": os.getpid(),
            "memory": options.parse_memory_bytes,
            "seconds": options.parse_timeout,
            "most_chars": options.max_text_chars,
        }
    )


@cache
def _path() -> list[str]:
    found = [spec.submodule_search_locations for name in _PACKAGES if (spec := find_spec(name))]
    return list(dict.fromkeys(str(Path(place).parent) for places in found if places for place in places))


def _parsed(output: bytes, status: int, reader: str) -> Parsed:
    try:
        answer = msgspec.json.decode(output, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = _Answer(error=f"status {status}")
    if answer.text is not None and len(answer.text) <= config().vector_store.max_text_chars:
        return Parsed(text=answer.text, title=answer.title[:_TITLE], markdown=answer.markdown, metadata=answer.metadata)
    if answer.error:
        logger.warning("action=document_parser_failed reader=%s error=%r", reader, answer.error[:_ERROR])
    raise Unparsable(answer.code, answer.reason[:_REASON] or "is damaged: its parser crashed")


def _too_slow(seconds: float) -> Unparsable:
    return Unparsable("parse_timeout", f"takes longer than {seconds:g} seconds to be read; split it")
