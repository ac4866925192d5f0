"""Bulk TCP for benchmarks: ``traffic.py serve ADDRESS`` or ``traffic.py up|down ADDRESS BYTES``.

The server sinks on port 5001 and sources on port 5002 (as many bytes as the client's 8-byte request says).
The client prints seconds on stdout; the upload ends when the sink has confirmed every byte.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

SINK, SOURCE = 5001, 5002
BLOCK = bytes(1 << 20)


def sink(connection: socket.socket) -> None:
    """Swallow until the end, then say how much it was."""
    total = 0
    buffer = bytearray(1 << 20)
    with connection:
        while count := connection.recv_into(buffer):
            total += count
        connection.sendall(total.to_bytes(8))


def source(connection: socket.socket) -> None:
    """Send as much as is asked for."""
    with connection:
        left = int.from_bytes(connection.recv(8, socket.MSG_WAITALL))
        while left:
            connection.sendall(BLOCK[: min(left, len(BLOCK))])
            left -= min(left, len(BLOCK))


def serve(address: str) -> None:
    """Serve both until stdin closes."""
    for port, handler in ((SINK, sink), (SOURCE, source)):
        listener = socket.create_server((address, port))

        def accept(listener: socket.socket = listener, handler: object = handler) -> None:
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=handler, args=(connection,), daemon=True).start()  # type: ignore[arg-type]

        threading.Thread(target=accept, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


def up(address: str, count: int) -> None:
    """Send ``count`` bytes and wait for the confirmation."""
    with socket.create_connection((address, SINK), timeout=30) as connection:
        connection.settimeout(300)
        left = count
        while left:
            connection.sendall(BLOCK[: min(left, len(BLOCK))])
            left -= min(left, len(BLOCK))
        connection.shutdown(socket.SHUT_WR)
        assert int.from_bytes(connection.recv(8, socket.MSG_WAITALL)) == count


def down(address: str, count: int) -> None:
    """Receive ``count`` bytes."""
    buffer = bytearray(1 << 20)
    with socket.create_connection((address, SOURCE), timeout=30) as connection:
        connection.settimeout(300)
        connection.sendall(count.to_bytes(8))
        left = count
        while left:
            got = connection.recv_into(buffer)
            assert got, "the connection ended early"
            left -= got


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        began = time.monotonic()
        {"up": up, "down": down}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
        print(time.monotonic() - began)
