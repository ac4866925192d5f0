"""Runs a program for which the kernel refuses a system call, by a seccomp filter: forbid.py CALL… -- COMMAND.

CALL: name of `CALLS`, with `=errno` behind it for another refusal than EPERM. Root of the machine needs no
no_new_privs for it; who else asks gets that too.
"""

import ctypes
import errno
import os
import struct
import sys

# x86_64 and aarch64; then which argument has which value, if any.
CALLS: dict[str, tuple[int, int, tuple[int, int] | None]] = {
    "mount": (165, 40, None),
    "unshare": (272, 97, None),
    "seccomp": (157, 167, (0, 22)),  # prctl(PR_SET_SECCOMP)
    "filter": (54, 208, (2, 26)),  # setsockopt(…, SO_ATTACH_FILTER)
}
_ARCH = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_SET_SECCOMP, _SET_NO_NEW_PRIVS = 22, 38


def _rules(call: str, which: int) -> list[tuple[int, int, int, int]]:
    name, _, code = call.partition("=")
    *numbers, argument = CALLS[name]
    refusal = (_RETURN, 0, 0, _ERRNO | getattr(errno, code or "EPERM"))
    if argument is None:
        return [(_LOAD, 0, 0, 0), (_EQUAL, 0, 1, numbers[which]), refusal]
    place, value = argument
    return [
        (_LOAD, 0, 0, 0),
        (_EQUAL, 0, 3, numbers[which]),
        (_LOAD, 0, 0, 16 + 8 * place),
        (_EQUAL, 0, 1, value),
        refusal,
    ]


def forbid(*calls: str) -> None:
    """For this process and its children, for good."""
    which = _ARCH[os.uname().machine][1]
    program = [rule for call in calls for rule in _rules(call, which)] + [(_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("=HBBI", *rule) for rule in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0:
        assert libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(_SET_SECCOMP, 2, ctypes.c_void_p(ctypes.addressof(header)), 0, 0) == 0, "no filter"


if __name__ == "__main__":
    at = sys.argv.index("--")
    forbid(*sys.argv[1:at])
    os.execvp(sys.argv[at + 1], sys.argv[at + 1 :])
