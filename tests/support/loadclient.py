"""Clients of a load test, processes of their own: what they measure is not a busy test's event loop.

    loadclient.py echo ADDRESS PORT          answers datagrams until its stdin closes
    loadclient.py blast ADDRESS PORT         floods whoever sends a datagram, with that one, while more come
    loadclient.py watch SECONDS PERIOD WHAT FD…   round trips over open tunnels, as JSON: milliseconds, lost;
                                             WHAT: echo, or names, which are asked of the gateway
    loadclient.py attack SECONDS KIND FD     a flood over an open tunnel, as fast as it goes; as JSON: frames

FD: the socket of a tunnel after its handshake. Each prints `ready` first; `watch` and `attack` then begin
as soon as their stdin closes.
"""

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import addresses as at
from support import floods

ECHO_PORT = 7007
_LOST_S = 2.0
_CHUNK = 64 * 1024
_MAGIC = b"bystander"
_NO_ERROR = b"\x81\x80\0\1\0\1\0\0\0\0"
"""Of a DNS answer with one record: flags, and the counts of its sections (RFC 1035 section 4.1.1)."""


def echo(address: str, port: int) -> None:
    """A UDP echo that costs as little as Python allows."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    print("ready", flush=True)
    while True:
        for readable in select.select([sock, sys.stdin], [], [])[0]:
            if readable is sys.stdin:
                return
            data, peer = sock.recvfrom(2048)
            sock.sendto(data, peer)


def blast(address: str, port: int) -> None:
    """Datagrams as fast as Python allows, until a while after the last one that asked for them."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    sock.setblocking(False)
    print("ready", flush=True)
    data, peer, until = b"", ("", 0), 0.0
    while True:
        readable = select.select([sock, sys.stdin], [], [], 0 if time.monotonic() < until else None)[0]
        if sys.stdin in readable:
            return
        if readable:
            data, peer = sock.recvfrom(2048)
            until = time.monotonic() + 4 * floods.KEPT_UP_S
        for _ in range(32):
            with contextlib.suppress(OSError):
                sock.sendto(data, peer)


class Bystander:
    """A well-behaved guest: one datagram on its way at a time. asks: for names, instead of echoes."""

    def __init__(self, fd: int, number: int, *, asks: bool) -> None:
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(True)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._source = 6000 + number
        self._asks = asks
        self._wanted = b""
        self._sent_at = 0.0
        self._next_at = 0.0
        self._number = time.time_ns() // 10**6
        self._rest = b""
        self.times: list[float] = []
        self.lost = 0

    def turn(self, now: float, period: float) -> None:
        """Send the next datagram where it is time, or give the last one up."""
        waiting = self._sent_at > 0
        if waiting and now - self._sent_at > _LOST_S:
            self.lost += 1
        elif waiting or now < self._next_at:
            return
        self._number += 1
        self._sent_at, self._next_at = now, now + period
        self.socket.sendall(floods.masked(self._next_frame()))

    def _next_frame(self) -> bytes:
        """What it is going to look for is what only the answer has; a name is a new one for seconds."""
        if self._asks:
            name = b"n%d" % (5000 + self._number % 5000)
            self._wanted = _NO_ERROR + bytes([len(name)]) + name
            return floods.query(name + b".many.allowed.test", self._number % 65536, self._source)
        self._wanted = _MAGIC + struct.pack("!Q", self._number)
        return floods.datagram(IPv4Address(at.WEB).packed, self._source, ECHO_PORT, self._wanted)

    def read(self) -> None:
        """Take what came; note the round trip if the answer is in it."""
        data = self._rest + self.socket.recv(65536)
        assert data, "the tunnel was closed"
        if floods.ARP_QUESTION in data:
            self.socket.sendall(floods.ARP_REPLY)
        if self._sent_at and self._wanted in data:
            self.times.append((time.perf_counter() - self._sent_at) * 1000)
            self._sent_at = 0.0
        self._rest = data[-64:]


def watch(seconds: float, period: float, what: str, fds: list[int]) -> dict[str, object]:
    """Round trips over each tunnel, one after the other."""
    guests = [Bystander(fd, number, asks=what == "names") for number, fd in enumerate(fds)]
    end = time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        for guest in guests:
            guest.turn(now, period)
        readable = select.select([guest.socket for guest in guests], [], [], 0.001)[0]
        for guest in guests:
            if guest.socket in readable:
                guest.read()
    times = sorted(ms for guest in guests for ms in guest.times)
    return {"times": times, "lost": sum(guest.lost for guest in guests)}


def attack(seconds: float, kind: str, messages: list[bytes], fd: int) -> dict[str, object]:
    """Send the flood round and round; of what comes back only ARP is answered."""
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    chunks, ends = _chunked(messages)
    at_once = 1 if kind in floods.BYTE_BY_BYTE else _CHUNK
    sent, turn, rest, asked = 0, 0, memoryview(b""), True
    now = next_at = time.perf_counter()
    end = now + seconds
    while now < end or rest:  # the next flood on this tunnel begins with a whole message
        if not rest and asked:
            rest, asked = memoryview(floods.ARP_REPLY), False
        elif not rest and now >= next_at:
            rest = memoryview(chunks[turn % len(chunks)])
            sent += ends[turn % len(chunks)]
            turn += 1
            next_at = now + floods.KEPT_UP_S * (kind in floods.FROM_OUTSIDE)
        readable, writable, _ = select.select([sock], [sock] if rest else [], [], 0.01)
        if readable:
            with contextlib.suppress(BlockingIOError):
                came = sock.recv(1 << 18)
                if not came:
                    return {"frames": sent, "closed": True}
                asked = asked or floods.ARP_QUESTION in came
        if writable:
            with contextlib.suppress(BlockingIOError):
                rest = rest[sock.send(rest[:at_once]) :]
        now = time.perf_counter()
    return {"frames": sent, "closed": False}


def _chunked(messages: list[bytes]) -> tuple[list[bytes], list[int]]:
    """Whole messages joined to about 64 KiB, and how many are in each."""
    chunks, counts, current, size = [], [], [], 0
    for message in messages:
        current.append(message)
        size += len(message)
        if size >= _CHUNK:
            chunks.append(b"".join(current))
            counts.append(len(current))
            current, size = [], 0
    if current:
        chunks.append(b"".join(current))
        counts.append(len(current))
    return chunks, counts


def _wait_for_start() -> None:
    print("ready", flush=True)
    sys.stdin.read()


def main(what: str, *words: str) -> None:
    """Be one of them."""
    if what in ("echo", "blast"):
        (echo if what == "echo" else blast)(words[0], int(words[1]))
        return
    if what == "watch":
        _wait_for_start()
        result = watch(float(words[0]), float(words[1]), words[2], [int(word) for word in words[3:]])
    else:
        messages = floods.messages(words[1])
        _wait_for_start()
        result = attack(float(words[0]), words[1], messages, int(words[2]))
    print(json.dumps(result), flush=True)
    os._exit(0)  # the sockets stay open in the test, which closes them


if __name__ == "__main__":
    main(*sys.argv[1:])
