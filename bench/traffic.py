"""What runs on a guest: ``python -m bench.traffic WHAT ADDRESS WORDS…``, the standard library only.

    up, down BYTES          seconds for so many bytes
    bulk-up, bulk-down      without end; says when it runs; at the next line, Mbit/s from then on
    connect COUNT SECONDS   milliseconds of each TCP connect, one after the other, at most so long
    echo COUNT SECONDS      milliseconds of 64 bytes there and back over one TCP connection
    udp-up, udp-down SECONDS    datagrams sent and received, of the smallest frames

Prints ``ready``, waits for a line, and prints its result as JSON, or ``{"error": "…"}``.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from bench.peer import BLOCK, DATAGRAMS, ECHO, MOST, SINK, SOURCE, Counter, flood

_TIMEOUT_S = 120
_RUNNING = 2 << 20
"""Bytes after which a bulk flow is at its speed."""


def _connected(address: str, port: int) -> socket.socket:
    connection = socket.create_connection((address, port), timeout=_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes; one recv may bring fewer where the socket has a time-out, MSG_WAITALL or not."""
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, "the connection ended early"
        data += more
    return data


def _unseen(_: int) -> None:
    """Nobody wants to know how many bytes these were."""


def up(address: str, size: int, moved: Callable[[int], None] = _unseen) -> float:
    """Send ``size`` bytes and wait for the confirmation."""
    began = time.monotonic()
    with _connected(address, SINK) as connection:
        left = size
        while left:
            sent = connection.send(BLOCK[: min(left, len(BLOCK))])
            left -= sent
            moved(sent)
        connection.shutdown(socket.SHUT_WR)
        assert int.from_bytes(_exactly(connection, 8)) == size
    return time.monotonic() - began


def down(address: str, size: int, moved: Callable[[int], None] = _unseen) -> float:
    """Receive ``size`` bytes."""
    began, buffer = time.monotonic(), bytearray(1 << 20)
    with _connected(address, SOURCE) as connection:
        connection.sendall(size.to_bytes(8))
        left = size
        while left:
            got = connection.recv_into(buffer)
            assert got, "the connection ended early"
            left -= got
            moved(got)
    return time.monotonic() - began


def bulk(transfer: Callable[[str, int, Callable[[int], None]], float], address: str) -> float:
    """A transfer beside which something else is measured; its Mbit/s from ``running`` to the next line."""
    total, is_running = 0, threading.Event()
    ended: list[str] = []

    def moved(size: int) -> None:
        nonlocal total
        total += size
        if total >= _RUNNING:
            is_running.set()

    def endlessly() -> None:
        try:
            while True:
                transfer(address, MOST, moved)
        except (OSError, AssertionError) as error:
            ended.append(str(error))
            is_running.set()

    threading.Thread(target=endlessly, daemon=True).start()
    assert is_running.wait(_TIMEOUT_S), "the bulk flow did not come to speed"
    assert not ended, ended[0]
    before, began = total, time.monotonic()
    print("running", flush=True)
    sys.stdin.readline()
    assert not ended, ended[0]
    return (total - before) * 8 / 1e6 / (time.monotonic() - began)


def _repeated(
    count: int, seconds: float, once: Callable[[], None], after: Callable[[], None] = lambda: None
) -> list[float]:
    """Milliseconds of each turn, until there are so many or the time is over; at least ten. ``after`` each,
    outside its time."""
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < count and (len(times) < 10 or time.monotonic() < end):
        began = time.perf_counter()
        once()
        times.append((time.perf_counter() - began) * 1000)
        after()
    return times


def connect(address: str, count: int, seconds: float) -> list[float]:
    """TCP connects; the close is not in the time."""
    opened: list[socket.socket] = []
    return _repeated(
        count, seconds, lambda: opened.append(_connected(address, ECHO)), lambda: opened.pop().close()
    )


def echo(address: str, count: int, seconds: float) -> list[float]:
    """Round trips of 64 bytes."""
    turns = itertools.count()
    with _connected(address, ECHO) as connection:

        def once() -> None:
            asked = next(turns).to_bytes(64)
            connection.sendall(asked)
            answer = _exactly(connection, 64)
            assert answer == asked, f"{answer!r} came back for {asked!r}"

        return _repeated(count, seconds, once)


def udp(address: str, way: str, seconds: float) -> dict[str, float]:
    """A flood one way: how many were sent, how many came, in how many seconds."""
    with _connected(address, DATAGRAMS) as control, socket.socket(type=socket.SOCK_DGRAM) as flow:
        flow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        control.sendall(way.encode())
        flow.connect((address, int.from_bytes(_exactly(control, 2))))
        if way == "u":
            sent = _flooded(flow, seconds)
            control.sendall(b".")
            received = int.from_bytes(_exactly(control, 8))
        else:
            control.sendall(round(seconds * 1000).to_bytes(4))
            seen = Counter(flow)
            flow.send(b"here")
            sent = int.from_bytes(_exactly(control, 8))
            received = seen.finish()
    return {"sent": sent, "received": received, "seconds": seconds}


def _flooded(flow: socket.socket, seconds: float) -> int:
    """`flood` on a thread, whose priority is its own."""
    sent: list[int] = []
    thread = threading.Thread(target=lambda: sent.append(flood(flow, seconds)))
    thread.start()
    thread.join()
    return sent[0]


def main(what: str, address: str, *words: str) -> None:
    """Wait for the start, do it, say what came of it."""
    numbers = [float(word) for word in words]
    todo: dict[str, Callable[[], Any]] = {
        "up": lambda: up(address, int(numbers[0])),
        "down": lambda: down(address, int(numbers[0])),
        "bulk-up": lambda: bulk(up, address),
        "bulk-down": lambda: bulk(down, address),
        "connect": lambda: connect(address, int(numbers[0]), numbers[1]),
        "echo": lambda: echo(address, int(numbers[0]), numbers[1]),
        "udp-up": lambda: udp(address, "u", numbers[0]),
        "udp-down": lambda: udp(address, "d", numbers[0]),
    }
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        result = todo[what]()
    except (OSError, AssertionError) as error:
        result = {"error": f"{what}: {error}"}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
