"""File descriptors that travel with messages between server and netd."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

MAX_FILE: Final = 5 << 20
"""As many flows as are ever dumped, with their details (`netns.details`)."""


def close_all(descriptors: Iterable[int]) -> None:
    """Close each descriptor that is still open."""
    for fd in descriptors:
        if fd >= 0:
            os.close(fd)


@contextlib.contextmanager
def file_of(content: bytes | None) -> Iterator[list[int]]:
    """A file in memory for content that fits no message; no descriptor for None. Raises OSError."""
    if content is None:
        yield []
        return
    with open(os.memfd_create("listed"), "wb", buffering=0) as file:
        file.write(content)
        yield [file.fileno()]


def contents(descriptors: Sequence[int]) -> bytes | None:
    """What is in the one file that came, at most `MAX_FILE`; None without one. Closes all of them."""
    try:
        return os.pread(descriptors[0], MAX_FILE, 0) if len(descriptors) == 1 else None
    except OSError:
        return None
    finally:
        close_all(descriptors)
