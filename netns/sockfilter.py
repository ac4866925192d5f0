"""Sockets that netd makes and the server only reads: what may come in is settled for good before."""

import ctypes
import socket
import struct
from collections.abc import Sequence

_SO_ATTACH_FILTER, _SO_LOCK_FILTER = 26, 44


def lock(connection: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    """Let through what a classic BPF program says (linux/filter.h), from now on. Raises OSError.

    Nobody can take it off (SO_LOCK_FILTER, socket(7)).
    """
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    pointer = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)
    connection.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)
