"""A file system that stops to answer when it is told to: FUSE, spoken by a thread of the test.

It has one directory, in which files can be made, written, looked at and removed. While it hangs its thread
reads no request, so whoever waits for it can still be killed. Source: linux/fuse.h, protocol 7.26.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOOKUP, _FORGET, _GETATTR, _SETATTR, _UNLINK, _OPEN, _WRITE = 1, 2, 3, 4, 10, 14, 16
_RELEASE, _FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR, _CREATE, _BATCH_FORGET = (
    18,
    25,
    26,
    27,
    28,
    29,
    35,
    42,
)
_INTERRUPT: Final = 36
_IN: Final = struct.Struct("<IIQQIIIHH")
_OUT: Final = struct.Struct("<IiQ")
_ROOT: Final = 1
_LOOK_S: Final = 0.02
_libc = ctypes.CDLL(None, use_errno=True)
_DETACH: Final = 2


class HangingFiles:
    """Serves the mount at ``folder`` until it is closed. ``go``: cleared, it answers nobody."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.go = threading.Event()
        self.go.set()
        self._names: dict[str, int] = {}
        self._data: dict[int, bytearray] = {}
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other"
        if _libc.mount(b"test", str(folder).encode(), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "cannot mount FUSE")
        self._is_over = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Whoever waits gets an error."""
        self._is_over = True
        self.go.set()
        self._thread.join(10)
        os.close(self._fd)
        _libc.umount2(str(self.folder).encode(), _DETACH)

    def files(self) -> dict[str, bytes]:
        """What is in it."""
        return {name: bytes(self._data[node]) for name, node in dict(self._names).items()}

    def _serve(self) -> None:
        while not self._is_over:
            if not self.go.wait(_LOOK_S) or not select.select([self._fd], [], [], _LOOK_S)[0]:
                continue
            if self.go.is_set():
                self._answer(os.read(self._fd, 1 << 20))

    def _answer(self, request: bytes) -> None:
        _, kind, unique, node, *_ = _IN.unpack_from(request)
        if kind in (_FORGET, _BATCH_FORGET, _INTERRUPT):
            return
        try:
            code, body = 0, self._do(kind, node, request[_IN.size :])
        except OSError as error:
            code, body = -(error.errno or errno.EIO), b""
        os.write(self._fd, _OUT.pack(_OUT.size + len(body), code, unique) + body)

    def _do(self, kind: int, node: int, body: bytes) -> bytes:
        if kind == _INIT:
            return struct.pack("<IIIIHHIIHHI28x", 7, 26, 1 << 16, 0, 16, 12, 1 << 16, 1, 0, 0, 0)
        if kind in (_LOOKUP, _UNLINK):
            name = body.rstrip(b"\0").decode()
            if name not in self._names:
                raise FileNotFoundError(errno.ENOENT, name)
            return self._entry(self._names[name]) if kind == _LOOKUP else self._forget(name)
        if kind == _CREATE:
            return self._create(body[16:].rstrip(b"\0").decode())
        if kind == _WRITE:
            return self._write(node, body)
        if kind == _SETATTR and struct.unpack_from("<I", body)[0] & 8:  # FATTR_SIZE
            del self._data[node][struct.unpack_from("<Q", body, 16)[0] :]
        if kind in (_GETATTR, _SETATTR):
            return struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        if kind in (_OPEN, _OPENDIR):
            return bytes(16)
        if kind in (_RELEASE, _RELEASEDIR, _FLUSH, _READDIR):
            return b""
        raise OSError(errno.ENOSYS, "not here")

    def _create(self, name: str) -> bytes:
        node = self._names[name] = _ROOT + 1 + len(self._data)
        self._data[node] = bytearray()
        return self._entry(node) + bytes(16)

    def _forget(self, name: str) -> bytes:
        del self._names[name]
        return b""

    def _write(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        self._data[node][offset : offset + size] = body[40 : 40 + size]
        return struct.pack("<II", size, 0)

    def _entry(self, node: int) -> bytes:
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + self._attributes(node)

    def _attributes(self, node: int) -> bytes:
        size = len(self._data.get(node, b""))
        mode, links = (0o40777, 2) if node == _ROOT else (0o100600, int(node in self._names.values()))
        return struct.pack("<6Q10I", node, size, 0, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)


@contextmanager
def hanging_files(folder: Path) -> Iterator[HangingFiles]:
    """Mount it over an empty directory."""
    files = HangingFiles(folder)
    try:
        yield files
    finally:
        files.close()
