"""One capture's file: made, appended to, closed. Whatever fails, what is in it are whole blocks.

Everything here may block; the writer's thread alone calls it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Sequence
from typing import Final

import aero_l2
from aero_l2.observe import pcapng
from aero_l2.observe.capture.rules import INTERFACE, CaptureRules, file_name

MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NAMES_TRIED: Final = 16
"""Another process may write captures to the same directory, and begin one in the same millisecond."""


class CaptureFile:
    """An open file, with its headers in it.

    name: in its directory. size: bytes in it. frames: blocks of frames in it. is_full: a frame did not fit,
    and none is appended after that: what is in it is the begin, without gaps.

    Raises, on being made:
        OSError: it cannot be made, or its headers do not go into it; nothing is left of it then.
    """

    def __init__(self, rules: CaptureRules, unix_ms: int, session_id: int) -> None:
        self._rules = rules
        self._fd, self.name = _made(rules.folder, unix_ms, session_id)
        self.path = os.path.join(rules.folder, self.name)
        self.size = self.frames = 0
        self.is_full = False
        self._room = rules.max_bytes - pcapng.STATISTICS_BYTES if rules.max_bytes else 1 << 62
        with contextlib.suppress(OSError):  # not on every file system; it keeps others from removing it
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            self._write(headers(rules.snaplen))
        except OSError:
            self._release()
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            raise

    def encoded(
        self, nanoseconds: int, frames: Sequence[bytes], *, inbound: bool, ahead: int
    ) -> pcapng.Packets:
        """The blocks of `frames` that fit behind `ahead` bytes, which are still to be written."""
        if self.is_full:
            return pcapng.Packets([], 0, 0)
        room = self._room - self.size - ahead
        packets = pcapng.packets(nanoseconds, frames, inbound=inbound, snaplen=self._rules.snaplen, room=room)
        self.is_full = packets.frames < len(frames)
        return packets

    def append(self, data: bytes, frames: int) -> None:
        """Write blocks, which are those of so many frames.

        Raises:
            OSError: not all of them could be written; those that could stay. Only `discard` may follow.
        """
        if not os.fstat(self._fd).st_nlink:
            raise OSError(errno.ENOENT, "the file was removed")
        self._write(data)
        self.frames += frames

    def finish(self, left_out: int) -> None:
        """Write what is known of the frames that are not in it, where there is room, and close it.

        Raises:
            OSError: that could not be written, or the file system tells only now of an earlier failure.
        """
        end = pcapng.statistics(time.time_ns(), self.frames + left_out, left_out)
        try:
            if not self._rules.max_bytes or self.size + len(end) <= self._rules.max_bytes:
                self._write(end)
        finally:
            self._release()

    def discard(self) -> None:
        """Close it as it is."""
        with contextlib.suppress(OSError):
            self._release()

    def _write(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:] if written else data)
        except OSError:
            self._keep_whole(data, written)
            raise
        self.size += len(data)

    def _keep_whole(self, data: bytes, written: int) -> None:
        """Cut off what follows the last whole block of `data`, of which so much was written."""
        kept, blocks = pcapng.whole_blocks(data, written)
        if self.size:
            self.size += kept
            self.frames += blocks
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self.size)

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def headers(snaplen: int) -> bytes:
    """What every file begins with."""
    application = f"aero-l2 {aero_l2.__version__}"
    return pcapng.section_header(application) + pcapng.interface_description(INTERFACE, snaplen)


def _made(folder: str, unix_ms: int, session_id: int) -> tuple[int, str]:
    """A new file: descriptor and name; in a directory that was removed meanwhile, if it can be made anew."""
    for later in range(_NAMES_TRIED):
        name = file_name(unix_ms + later, session_id)
        path = os.path.join(folder, name)
        try:
            return os.open(path, _FLAGS, MODE), name
        except FileExistsError:
            continue
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, FOLDER_MODE)
            return os.open(path, _FLAGS, MODE), name
    raise FileExistsError(errno.EEXIST, "files of that name are there already")
