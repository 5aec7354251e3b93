"""Becomes another program: bound to its parent's life and, when asked, as an unprivileged user.

Run as a script of its own (`python -I -S launch.py …`), because none of this is safe between fork and exec of a process
that has threads. It uses the standard library alone and replaces itself, so the program keeps this process's id.
"""

import argparse
import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_NO_SETUID_FIXUP = 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--death-signal", type=int, default=0)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--enter-everywhere", action="store_true")
    parser.add_argument("program", nargs="+")
    options = parser.parse_args(arguments)
    try:
        if options.uid is not None:
            _become(options.uid, options.gid, enter_everywhere=options.enter_everywhere)
        if options.death_signal and sys.platform == "linux":
            # After the change of user: that would clear it.
            _prctl(_PR_SET_PDEATHSIG, options.death_signal)
        if os.getppid() != options.parent:
            sys.exit("the supervisor ended before this program started")
        os.execv(options.program[0], options.program)  # noqa: S606 - this is what the script is for
    except OSError as error:
        sys.exit(f"cannot start {options.program[0]} as uid {os.geteuid()}: {error}")


def _become(uid: int, gid: int, *, enter_everywhere: bool) -> None:
    """Take another user's id; with `enter_everywhere` keep just the right to pass closed directories (Linux).

    A clone under /root (mode 0700) is closed to any other user, and opening somebody's home is not ours to do.
    """
    if enter_everywhere:
        capability = _passing_capability()
        # Without this bit access(2) ignores the capabilities of an unprivileged user, and PostgreSQL asks it.
        _prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP)
        for other in range(64):
            if other != capability:
                _libc().prctl(_PR_CAPBSET_DROP, other, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if enter_everywhere:
        _keep_only(capability)
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def _passing_capability() -> int:
    """The weaker of the two that serve; containers often grant root only the stronger."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - pathlib costs half of the start
        permitted = int(next(line for line in status if line.startswith("CapPrm:")).split()[1], 16)
    return _DAC_READ_SEARCH if permitted & (1 << _DAC_READ_SEARCH) else _DAC_OVERRIDE


def _keep_only(capability: int) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    mask = 1 << capability
    # Twice (low, high words of) effective, permitted, inheritable.
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    if _libc().capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")


def _prctl(option: int, *values: int) -> None:
    if _libc().prctl(option, *[ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    main(sys.argv[1:])
