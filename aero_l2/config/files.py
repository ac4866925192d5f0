"""Reading a file of settings or of a secret."""

from __future__ import annotations

import os


class Unreadable(Exception):
    """A file that cannot be used; str() is why, without anything of its content."""


def read_file(path: str, limit: int, *, wait: bool) -> bytes:
    """At most `limit` bytes. Not to `wait` is for a process that must not hang on a FIFO."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | (0 if wait else os.O_NONBLOCK)
    data = b""
    try:
        fd = os.open(path, flags)
        try:
            while len(data) <= limit and (part := os.read(fd, limit + 1 - len(data))):
                data += part
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        raise Unreadable(f"cannot be read: {_why(error)}") from None
    if len(data) > limit:
        raise Unreadable(f"is larger than {limit} bytes")
    return data


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "its path is none"
