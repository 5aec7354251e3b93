"""The program of the child process: `python -I -S child.py OPTIONS`, a document on stdin, its text as JSON on stdout.

It confines itself before it imports a parser. It answers `{"text", "title", "markdown", "metadata"}`, or `{"code",
"reason"}` for a document that can't be read; anything else (a signal, half an answer) its parent takes for a failure.
"""

import json
import sys
from collections.abc import Callable
from typing import Any, Protocol


class Reader(Protocol):
    """A module of `readers` has one of these."""

    def __call__(self, data: bytes, *, declared: str, most_chars: int) -> Any: ...


def main() -> None:
    options = json.loads(sys.argv[1])
    sys.path.extend(options["path"])
    # Only now can our own modules be found: isolated mode leaves the standard library alone on the path.
    from vectorstore.parsing import confinement  # noqa: PLC0415

    confinement.die_with(options["parent"], after=options["seconds"])
    data = sys.stdin.buffer.read()
    confinement.limit(memory=options["memory"], seconds=options["seconds"])
    confinement.fence(sys.path)
    answer = _answer(lambda: _read(data, options), options["memory"])
    sys.stdout.buffer.write(json.dumps(answer).encode())
    sys.stdout.buffer.flush()


def _read(data: bytes, options: dict[str, Any]) -> dict[str, Any]:
    # Behind the fence, as everything that a parser's package does when it is imported.
    from importlib import import_module  # noqa: PLC0415

    from kernel.text import storable  # noqa: PLC0415

    reader: Reader = import_module(f"vectorstore.parsing.readers.{options['reader']}").read
    parsed = reader(data, declared=options["declared"], most_chars=options["most_chars"])
    return {
        "text": storable(parsed.text),
        "title": storable(parsed.title),
        "markdown": parsed.markdown,
        "metadata": parsed.metadata,
    }


def _answer(work: Callable[[], dict[str, Any]], memory: int) -> dict[str, Any]:
    # As above: not to be found earlier.
    from vectorstore.parsing.values import Unparsable  # noqa: PLC0415

    try:
        return work()
    except Unparsable as error:
        return {"code": error.code, "reason": error.reason}
    except MemoryError:
        return {"code": "too_large", "reason": f"needs more than {memory} bytes of memory to be read; split it"}
    except RecursionError:
        return {"code": "parse_failed", "reason": "is nested too deeply to be read"}
    except Exception as error:  # noqa: BLE001  whatever a parser raises over bytes it doesn't understand
        return {"code": "parse_failed", "reason": "is damaged or not what its name says", "error": type(error).__name__}


if __name__ == "__main__":
    main()
