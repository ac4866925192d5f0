"""Reading a file of settings or of a secret, and what to do where that fails."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

_PERMISSION: Final = (errno.EACCES, errno.EPERM)
_MISSING: Final = (errno.ENOENT, errno.ENOTDIR)


class Unreadable(Exception):
    """A file that cannot be used; str() is why, without anything of its content.

    Attributes:
        fix: what to do about it.
        fix_later: the same, of a file that was read once and keeps what it held; empty where the file can be
            read, and what it holds is at fault.
    """

    def __init__(self, problem: str, fix: str, fix_later: str = "") -> None:
        super().__init__(problem)
        self.fix = fix
        self.fix_later = fix_later


_OWN_DESCRIPTORS = ("/dev/fd/", "/dev/std", "/proc/self/", "/proc/thread-self/")  # others' by then


def read_file(path: str, limit: int, *, again: bool) -> bytes:
    """At most `limit` bytes.

    Read `again` by a process that goes on and must not hang, a FIFO is unreadable: what went through it is
    gone.

    Raises Unreadable.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | (os.O_NONBLOCK if again else 0)
    data = b""
    try:
        fd = os.open(path, flags)
        try:
            if again and (stat.S_ISFIFO(os.fstat(fd).st_mode) or path.startswith(_OWN_DESCRIPTORS)):
                raise OSError(errno.ESPIPE, "it is a FIFO, which gives its content once")
            while len(data) <= limit and (part := os.read(fd, limit + 1 - len(data))):
                data += part
        finally:
            os.close(fd)
    except OSError as error:
        raise unreadable(error) from None
    except ValueError:
        raise unreadable(OSError(errno.ENOENT, "its path is none")) from None
    if len(data) > limit:
        raise Unreadable(f"is larger than {limit} bytes", "shorten it, or name another file")
    return data


def unreadable(error: OSError) -> Unreadable:
    """Why a file cannot be read, with what helps against it."""
    problem = f"cannot be read: {error.strerror}"
    if error.errno in _PERMISSION:
        return Unreadable(
            problem,
            "let the user who starts the program read it",
            "let the user the proxy runs as read it, or restart",
        )
    if error.errno in _MISSING:
        return Unreadable(problem, "check the path", "put it back, or name another one and restart")
    return Unreadable(problem, "name a file that can be read", "name a file that can be read and restart")
