"""`python -m benchmarks [part …] [--quick]`: progress goes to stderr, the table to stdout."""

import argparse
import signal
import sys
import time
from collections.abc import Callable

from benchmarks import machine
from benchmarks.parts import fanout, idle, ingest, memory, quality, recall, relay, search, streams, turn
from benchmarks.report import Measure, progress, table
from benchmarks.stage import Stage

_PARTS: dict[str, Callable[..., list[Measure]]] = {
    "relay": relay.run,
    "fanout": fanout.run,
    "idle": idle.run,
    "turn": turn.run,
    "streams": streams.run,
    "ingest": ingest.run,
    "memory": memory.run,
    "quality": quality.run,
    "recall": recall.run,
    "search": search.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what must be fast.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of: {', '.join(_PARTS)}; all without one")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, for a first impression")
    options = parser.parse_args()
    unknown = sorted(set(options.parts) - set(_PARTS))
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; known: {', '.join(_PARTS)}")
    # Ended by a signal, it stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began, description = time.monotonic(), machine.description()
    measures: list[Measure] = []
    with Stage() as stage:
        for name in options.parts or _PARTS:
            measures += _PARTS[name](stage, quick=options.quick)
    progress("done")
    print(f"{description}\nThe run took {time.monotonic() - began:.0f} s{' (--quick)' * options.quick}.\n")
    print(table(measures))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
