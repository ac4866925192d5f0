"""Runs a program in a user namespace of its own, with limits there: newuser.py NAME=VALUE… -- COMMAND.

NAME: of a file in /proc/sys/user, which belongs to the user namespace. Needs root; ids stay what they are.
"""

import ctypes
import os
import sys
from pathlib import Path

_NEWUSER = 0x10000000
_EVERYBODY = "0 0 4294967295"


def _enter() -> None:
    """A child that stays outside writes the maps."""
    libc = ctypes.CDLL(None, use_errno=True)
    (read_made, made), (read_mapped, mapped) = os.pipe(), os.pipe()
    inside = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(made)
        os.read(read_made, 1)
        for kind in ("uid", "gid"):
            Path(f"/proc/{inside}/{kind}_map").write_text(_EVERYBODY)
        os.write(mapped, b"x")
        os._exit(0)
    assert libc.unshare(_NEWUSER) == 0, os.strerror(ctypes.get_errno())
    os.close(made)
    os.read(read_mapped, 1)
    os.waitpid(child, 0)


if __name__ == "__main__":
    at = sys.argv.index("--")
    _enter()
    for limit in sys.argv[1:at]:
        name, _, value = limit.partition("=")
        Path("/proc/sys/user", name).write_text(value)
    os.execvp(sys.argv[at + 1], sys.argv[at + 1 :])
