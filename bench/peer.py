"""The far end of every measurement: ``python -m bench.peer ADDRESS``, the standard library only, as any user.

TCP: port 5001 sinks and says how much it was, 5002 sends as many bytes as the 8-byte request says, 5003
echoes, 5004 is the control of a run of datagrams, whose UDP port is told there. Serves until SIGTERM or
SIGINT; the child of a run, which says so, until its standard input closes.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
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
LATE_S = 2
"""Who floods on when a run is over is not listened to any longer."""
FLOOD_MAX_S = 10
FLOOD_NICE = 10
"""What sends as fast as it can gives way to what it floods, and takes of the machine what is left over."""
PLACES = 64
"""Connections at a time; who comes beyond is closed at once."""
SILENCE_S = 60
"""A connection on which nothing moves for so long ends."""
MOST = 1 << 32
"""Bytes that one connection sinks or sends."""
FULL_S = 0.1
"""Until the next look, where the system has no descriptors left."""
UNTIL_EOF = "--until-eof"
_SWALLOWED = bytearray(1 << 17)
"""What is sunk, of all connections: nobody reads it."""


def sink(connection: socket.socket) -> None:
    """Swallow until the end, then say how much it was."""
    total = 0
    while count := connection.recv_into(_SWALLOWED):
        total += count
        if total > MOST:
            return
    connection.sendall(total.to_bytes(8))


def source(connection: socket.socket) -> None:
    """Send as much as is asked for."""
    left = int.from_bytes(connection.recv(8, socket.MSG_WAITALL))
    while 0 < left <= MOST:
        connection.sendall(BLOCK[: min(left, len(BLOCK))])
        left -= min(left, len(BLOCK))


def echo(connection: socket.socket) -> None:
    """Send back what comes."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(1 << 16):
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
            try:
                connection.recv(1, socket.MSG_WAITALL)
            finally:
                count = seen.finish()
        else:
            seconds = int.from_bytes(connection.recv(4, socket.MSG_WAITALL)) / 1000
            flow.connect(_where_from(flow, connection.getpeername()[0]))
            count = flood(flow, min(seconds, FLOOD_MAX_S), lambda: not _has_gone(connection))
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


def _has_gone(client: socket.socket) -> bool:
    """Whether its connection has ended."""
    if not select.select([client], [], [], 0)[0]:
        return False
    try:
        return not client.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


class Counter:
    """Counts datagrams on a thread until `finish`."""

    def __init__(self, flow: socket.socket) -> None:
        self._flow = flow
        self._is_over = self._is_late = False
        self._count = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        flow.settimeout(QUIET_S)
        self._thread.start()

    def _run(self) -> None:
        buffer = bytearray(2048)
        receive = self._flow.recv_into
        while not self._is_late:
            try:
                receive(buffer)
                self._count += 1
            except TimeoutError:
                if self._is_over:
                    return
            except ConnectionError:
                continue  # an ICMP error about what was sent before

    def finish(self) -> int:
        """The number, once nothing has come for a while, or too much."""
        self._is_over = True
        self._thread.join(LATE_S)
        self._is_late = True
        self._thread.join()
        return self._count


def flood(flow: socket.socket, seconds: float, is_wanted: Callable[[], bool] = lambda: True) -> int:
    """Send as fast as it goes, as long as it is wanted; the number sent."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), FLOOD_NICE)
    payload = bytes(PAYLOAD)
    end, count, send = time.monotonic() + seconds, 0, flow.send
    while time.monotonic() < end and is_wanted():
        for _ in range(256):
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


class Places:
    """Connections that are served, each on a thread of its own; no more than there are places."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(PLACES)

    def accept_all(self, listener: socket.socket, handler: Callable[[socket.socket], None]) -> None:
        """Serve who comes, for ever."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # no descriptors, no memory, or who came has gone
                time.sleep(FULL_S)
                continue
            if not self._free.acquire(blocking=False):
                connection.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(connection, handler), daemon=True).start()
            except (RuntimeError, MemoryError):  # no more threads
                connection.close()
                self._free.release()

    def _serve(self, connection: socket.socket, handler: Callable[[socket.socket], None]) -> None:
        try:
            with connection:
                end_in_silence(connection)
                handler(connection)
        except (OSError, MemoryError):
            return  # a guest that has gone or is silent; or there is no room for it
        finally:
            self._free.release()


def end_in_silence(connection: socket.socket) -> None:
    """By the kernel's time-outs: Python's own would make each call two."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(
            socket.SOL_SOCKET, option, struct.pack("ll", *divmod(round(SILENCE_S * 1e6), 10**6))
        )


def listen(address: str) -> None:
    """Serve all of it on threads."""
    places = Places()
    for port, handler in _HANDLERS.items():
        listener = socket.create_server((address, port), backlog=128)
        threading.Thread(target=places.accept_all, args=(listener, handler), daemon=True).start()


def main(words: list[str]) -> None:
    """Serve until the end. Raises SystemExit where that is not possible."""
    addresses = [word for word in words if word != UNTIL_EOF]
    if len(addresses) != 1:
        raise SystemExit("bench: peer takes one address to listen on")
    ending = {signal.SIGTERM}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell has it for what runs beside it
        ending.add(signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # before there are threads, which have it from here
    try:
        listen(addresses[0])
    except OSError as error:
        raise SystemExit(f"bench: peer cannot listen: {error.strerror}") from None
    print("ready", flush=True)
    if UNTIL_EOF in words:
        threading.Thread(target=_until_eof, daemon=True).start()
    signal.sigwait(ending)


def _until_eof() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SystemExit as end:  # with status 2, as ./dev bench ends where something could not be done
        print(end.code, file=sys.stderr)
        sys.exit(2)
