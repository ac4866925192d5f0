"""Where lines of the audit log go: a file that is rotated by size, or stdout. Blocking."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from aero_l2.observe import outside

STDOUT: Final = "stdout"
MODE: Final = 0o600
CHUNK_BYTES: Final = 65_536
PIPE_BYTES: Final = 4096
"""PIPE_BUF of Linux: a write of no more is never mixed with another's (pipe(7))."""
_OF_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Unusable(Exception):
    """There is no writing there; the text says why and what to do."""


class Output(Protocol):
    """Takes lines. `write` raises OSError with nothing of that call's line half written."""

    def write(self, lines: Sequence[bytes]) -> Iterator[int]:
        """Write them in order; yields how many more are written, each time that some are."""

    def doubts(self) -> Iterator[str]:
        """What an operator may not have meant, a line each."""

    def reopen(self) -> None:
        """Begin anew by name, for who moved it away. Raises OSError; then everything stays as it was."""


class Stdout:
    """Standard output, which somebody else may write a line to now and then."""

    def doubts(self) -> Iterator[str]:
        """None that could be known of."""
        return iter(())

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor

    def write(self, lines: Sequence[bytes]) -> Iterator[int]:
        """See `Output`; waits for whoever reads."""
        for chunk in _chunks(lines, PIPE_BYTES):
            _write_all(self._descriptor, b"".join(chunk))
            yield len(chunk)

    def reopen(self) -> None:
        """Nothing to be done."""


class LogFile:
    """A file of at most `max_bytes` (0: any size); `max_files` of them: it, `.1`, the one before, and so on.

    Raises Unusable where it cannot be opened, or could not be rotated.
    """

    def __init__(self, path: str, max_bytes: int, max_files: int) -> None:
        self._path = os.path.abspath(path)
        self._max_bytes = max_bytes
        self._max_files = max_files
        try:
            self._file = _opened(self._path)
        except OSError as error:
            raise Unusable(_advice(self._path, error)) from error
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            self._max_bytes = 0
        elif max_bytes and not os.access(os.path.dirname(self._path), os.W_OK | os.X_OK):
            folder = os.path.dirname(self._path)
            raise Unusable(
                f"uid {os.geteuid()} cannot write in {folder}, so that {self._path} cannot be rotated; set "
                "AERO_L2_AUDIT_MAX_BYTES=0 where something else does that"
            )

    def doubts(self) -> Iterator[str]:
        """Who else may read the file, or put another in its place; for a warning."""
        file, folder = os.fstat(self._file), os.stat(os.path.dirname(self._path))
        if not stat.S_ISREG(file.st_mode):
            return
        if file.st_uid != os.geteuid() or file.st_mode & _OF_OTHERS:
            yield (
                f"AERO_L2_AUDIT_LOG: {self._path} was there, and others than {outside.user()} may read "
                "or write it: chown and chmod 600 it, or move it away"
            )
        if folder.st_mode & _WRITABLE_BY_OTHERS:
            yield (
                f"AERO_L2_AUDIT_LOG: others may write in {os.path.dirname(self._path)}, and so keep the log "
                f"from being rotated: give it a folder of {outside.user()}'s own"
            )

    def write(self, lines: Sequence[bytes]) -> Iterator[int]:
        """See `Output`."""
        for chunk in _chunks(lines, min(CHUNK_BYTES, self._max_bytes or CHUNK_BYTES)):
            size, data = os.fstat(self._file).st_size, b"".join(chunk)
            if self._max_bytes and size and size + len(data) > self._max_bytes:
                self._rotate()
            self._append(data)
            yield len(chunk)

    def reopen(self) -> None:
        """See `Output`."""
        opened = _opened(self._path)
        os.close(self._file)
        self._file = opened

    def _append(self, data: bytes) -> None:
        size = os.fstat(self._file).st_size
        try:
            _write_all(self._file, data)
        except OSError:
            with contextlib.suppress(OSError):  # a full disk took half a line
                os.ftruncate(self._file, size)
            raise

    def _rotate(self) -> None:
        """Put the file aside, unless that was done and only a new one could not be opened."""
        if os.path.lexists(self._path):
            older = [f"{self._path}.{number}" for number in range(1, self._max_files + 1)]
            for old, new in reversed(list(zip([self._path, *older], older, strict=False))):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(old, new)
            number = self._max_files
            while os.path.lexists(f"{self._path}.{number}"):
                os.unlink(f"{self._path}.{number}")
                number += 1
        self.reopen()


def _opened(path: str) -> int:
    """Raises OSError for what is neither a file nor a device, such as a symbolic link or a pipe."""
    descriptor = os.open(path, _FLAGS, MODE)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISCHR(kind):
        os.close(descriptor)
        raise OSError(0, "neither a file nor a device")
    os.set_blocking(descriptor, True)
    return descriptor


def _advice(path: str, error: OSError) -> str:
    said = "it is a symbolic link" if os.path.islink(path) else (error.strerror or str(error)).lower()
    text = f"cannot write {path} as {outside.user()}: {said}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.ENOENT):
        text += f": name a file in a folder that {outside.user()} may write to"
    return text


def _chunks(lines: Sequence[bytes], most: int) -> Iterator[list[bytes]]:
    """Lines together, of no more than so many bytes unless one alone has more."""
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        if chunk and size + len(line) > most:
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield chunk


def _write_all(descriptor: int, data: bytes) -> None:
    """All of it; one that somebody else has made non-blocking is waited for."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            room = select.poll()
            room.register(descriptor, select.POLLOUT)
            room.poll()
