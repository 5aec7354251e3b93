"""Ends a process so that its coverage is kept: what is killed takes with it what it ran."""

import os
import signal
import subprocess

#: `make coverage` is running: coverage.py hands itself to the processes of its process by this variable.
MEASURED = "COVERAGE_PROCESS_CONFIG" in os.environ
#: Seconds until it is told again (then a server waits for no answer any more), and until it is killed after all.
_PATIENCE = (3, 12)


def end_if_measured(process: subprocess.Popen[bytes]) -> None:
    """End it in an orderly way if that is worth the time; without a measurement the caller's SIGKILL does."""
    if not MEASURED:
        return
    for seconds in _PATIENCE:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return
