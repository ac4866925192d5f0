"""The far end of every measurement: ``python -m bench.peer ADDRESS``, the standard library only.

TCP: port 5001 sinks and says how much it was, 5002 sends as many bytes as the 8-byte request says, 5003
echoes, 5004 is the control of a run of datagrams, whose UDP port is told there. Serves until standard input
closes.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable

SINK, SOURCE, ECHO, DATAGRAMS = 5001, 5002, 5003, 5004
BLOCK = bytes(1 << 20)
PAYLOAD = 18
"""Bytes in an Ethernet frame of 64: the headers take 14, 20 and 8, the check sequence 4."""
QUIET_S = 0.3
"""Datagrams on their way when a run is over arrive by then."""
FIRST_S = 10
"""For the first datagram, which says where the others go."""
FLOOD_MAX_S = 10
FLOOD_NICE = 10
"""What sends as fast as it can gives way to what it floods, and takes of the machine what is left over."""


def sink(connection: socket.socket) -> None:
    """Swallow until the end, then say how much it was."""
    total = 0
    buffer = bytearray(1 << 20)
    while count := connection.recv_into(buffer):
        total += count
    connection.sendall(total.to_bytes(8))


def source(connection: socket.socket) -> None:
    """Send as much as is asked for."""
    left = int.from_bytes(connection.recv(8, socket.MSG_WAITALL))
    while left:
        connection.sendall(BLOCK[: min(left, len(BLOCK))])
        left -= min(left, len(BLOCK))


def echo(connection: socket.socket) -> None:
    """Send back what comes."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(65536):
        connection.sendall(data)


def datagrams(connection: socket.socket) -> None:
    """A run of datagrams: ``u`` counts what comes until the client says that it is done; ``d`` and
    milliseconds (4 bytes) floods the client, from its first datagram on. Answers with the number."""
    way = connection.recv(1, socket.MSG_WAITALL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        flow.bind((connection.getsockname()[0], 0))
        connection.sendall(flow.getsockname()[1].to_bytes(2))
        if way == b"u":
            seen = Counter(flow)
            connection.recv(1, socket.MSG_WAITALL)
            count = seen.finish()
        else:
            seconds = int.from_bytes(connection.recv(4, socket.MSG_WAITALL)) / 1000
            flow.connect(_where_from(flow, connection.getpeername()[0]))
            count = flood(flow, min(seconds, FLOOD_MAX_S))
        connection.sendall(count.to_bytes(8))


def _where_from(flow: socket.socket, client: str) -> tuple[str, int]:
    """Where the client's first datagram comes from. Its TCP connection has proved the address; what others
    send, or claim to, makes no flood. Raises TimeoutError."""
    end = time.monotonic() + FIRST_S
    while (left := end - time.monotonic()) > 0:
        flow.settimeout(left)
        source: tuple[str, int] = flow.recvfrom(2048)[1]
        if source[0] == client:
            return source
    raise TimeoutError


class Counter:
    """Counts datagrams on a thread until `finish`."""

    def __init__(self, flow: socket.socket) -> None:
        self._flow = flow
        self._is_over = False
        self._count = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        flow.settimeout(QUIET_S)
        self._thread.start()

    def _run(self) -> None:
        buffer = bytearray(2048)
        receive = self._flow.recv_into
        while True:
            try:
                receive(buffer)
                self._count += 1
            except TimeoutError:
                if self._is_over:
                    return
            except ConnectionError:
                continue  # an ICMP error about what was sent before

    def finish(self) -> int:
        """The number, once nothing has come for a while."""
        self._is_over = True
        self._thread.join()
        return self._count


def flood(flow: socket.socket, seconds: float) -> int:
    """Send as fast as it goes; the number sent."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), FLOOD_NICE)
    payload = bytes(PAYLOAD)
    end, count, send = time.monotonic() + seconds, 0, flow.send
    while time.monotonic() < end:
        for _ in range(64):
            try:
                send(payload)
                count += 1
            except (BlockingIOError, ConnectionError):
                break
    return count


_HANDLERS: dict[int, Callable[[socket.socket], None]] = {
    SINK: sink,
    SOURCE: source,
    ECHO: echo,
    DATAGRAMS: datagrams,
}


def _handle(connection: socket.socket, handler: Callable[[socket.socket], None]) -> None:
    with connection:
        try:
            handler(connection)
        except OSError:
            return  # a guest that has gone


def _accept(listener: socket.socket, handler: Callable[[socket.socket], None]) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_handle, args=(connection, handler), daemon=True).start()


def serve(address: str) -> None:
    """Serve all of it until standard input closes."""
    for port, handler in _HANDLERS.items():
        listener = socket.create_server((address, port), backlog=128)
        threading.Thread(target=_accept, args=(listener, handler), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1])
