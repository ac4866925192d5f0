"""Which files of captures stay: the newest of the directory, a few looked at or removed at a time.

Newest is what was written to last. Whatever is not called as a capture is, is no plain file of this user's,
or is locked by a process that writes it, stays. Everything here may block; only the writer's thread calls it.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import stat
from collections import deque
from collections.abc import Iterator
from typing import Final

from aero_l2.observe.capture.rules import is_file_name

AT_A_TIME: Final = 64
"""Entries of the directory that are looked at, or files removed, between two other tasks of the thread."""
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Pruning:
    """Of one directory. keep: files, those that are open included; 0 = all.

    What is there at the start is looked through once; from then on only files of this process are new.
    """

    def __init__(self, folder: str, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._open: set[str] = set()
        self._found: list[tuple[int, str]] = []
        self._closed: deque[str] = deque()
        self._closed_names: set[str] = set()
        self._looking: Iterator[os.DirEntry[str]] | None = None
        self._has_looked = not keep

    def opened(self, name: str) -> None:
        """A file of ours, which stays until it is closed."""
        if self._keep:
            self._open.add(name)

    def closed(self, name: str) -> None:
        """It is the newest now."""
        if self._keep:
            self._open.discard(name)
            self._closed.append(name)
            self._closed_names.add(name)

    def work(self) -> bool:
        """Do some of what is to be done; whether there is more."""
        if not self._keep:
            return False
        if not self._has_looked:
            self._look()
        for _ in range(AT_A_TIME):
            if not self._is_over():
                return not self._has_looked
            self._remove(self._oldest())
        return True

    def _is_over(self) -> bool:
        closed = len(self._found) + len(self._closed)
        return closed > 0 and closed + len(self._open) > self._keep

    def _oldest(self) -> str:
        if self._found:
            return heapq.heappop(self._found)[1]
        name = self._closed.popleft()
        self._closed_names.discard(name)
        return name

    def _look(self) -> None:
        try:
            self._looking = self._looking or os.scandir(self._folder)
            for _ in range(AT_A_TIME):
                entry = next(self._looking, None)
                if entry is None:
                    self._has_looked = True
                    return
                self._find(entry)
        except OSError:  # it was removed, say: nothing is kept there
            self._has_looked = True

    def _find(self, entry: os.DirEntry[str]) -> None:
        name = entry.name
        if not is_file_name(name) or name in self._open or name in self._closed_names:
            return
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            if _is_ours(status):
                heapq.heappush(self._found, (status.st_mtime_ns, name))

    def _remove(self, name: str) -> None:
        path = os.path.join(self._folder, name)
        with contextlib.suppress(OSError):
            fd = os.open(path, _FLAGS)
            try:
                if _is_ours(os.fstat(fd)):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(path)
            finally:
                os.close(fd)


def _is_ours(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
