"""A guest's network card for benchmarks: ``tapbridge.py TAP_FD SOCKET_FD``, frames between TAP and WebSocket.

Speaks the tunnel protocol with as little work as Python allows, so that the client is not what is measured:
all-zero masks, batches both ways. The handshake is made by whoever starts it. Ends when the WebSocket does.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys

HEADER = b"\xa2\x03\x00\x00"
MASK = b"\0\0\0\0"  # RFC 6455 section 5.3 asks clients for unpredictable masks; a benchmark may do without


def masked(frame: bytes) -> bytes:
    """One FRAME message as a client's binary WebSocket frame."""
    size = len(frame) + 4
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return b"\x82" + length + MASK + HEADER + frame


def write_frames(tap: int, buffer: bytes) -> bytes:
    """Write every complete message's frame to the TAP; return the rest."""
    at, end = 0, len(buffer)
    while end - at >= 4:
        size, skip = buffer[at + 1], 2
        if size == 126:
            size, skip = (buffer[at + 2] << 8) | buffer[at + 3], 4
        if end - at < skip + size:
            break
        if buffer[at] == 0x82 and buffer[at + skip + 2] == 0:
            with contextlib.suppress(OSError):
                os.write(tap, buffer[at + skip + 4 : at + skip + size])
        at += skip + size
    return buffer[at:]


def read_frames(tap: int) -> bytes:
    """Up to 64 frames that wait on the TAP, as one buffer of messages."""
    parts = []
    try:
        for _ in range(64):
            parts.append(masked(os.read(tap, 2048)))
    except BlockingIOError:
        pass
    return b"".join(parts)


def main(tap: int, connection: socket.socket) -> None:
    """Bridge until the connection ends."""
    connection.setblocking(True)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    os.set_blocking(tap, False)
    rest = b""
    while True:
        readable = select.select([connection, tap], [], [])[0]
        if connection in readable:
            data = connection.recv(262144)
            if not data:
                return
            rest = write_frames(tap, rest + data)
        if tap in readable:
            connection.sendall(read_frames(tap))


if __name__ == "__main__":
    main(int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
