"""Clients of a load test, processes of their own: what they measure is not a busy test's event loop.

    loadclient.py echo ADDRESS PORT          answers datagrams until its stdin closes
    loadclient.py watch SECONDS PERIOD FD…   round trips over open tunnels, as JSON: milliseconds, lost
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


def _arp_reply() -> bytes:
    mac, gateway = bytes.fromhex("02000000000f"), bytes.fromhex(at.GATEWAY_MAC.replace(":", ""))
    addresses = (mac, IPv4Address(at.GUEST).packed, gateway, IPv4Address(at.GATEWAY).packed)
    return gateway + mac + b"\x08\x06\0\1\x08\0\6\4\0\2" + b"".join(addresses)


_ARP = floods.masked(_arp_reply())


class Bystander:
    """A well-behaved guest: one datagram on its way at a time."""

    def __init__(self, fd: int, number: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(True)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._source = 6000 + number
        self._sent_at = 0.0
        self._next_at = 0.0
        self._number = 0
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
        data = _MAGIC + struct.pack("!I", self._number)
        frame = floods.datagram(IPv4Address(at.WEB).packed, self._source, ECHO_PORT, data)
        self._sent_at, self._next_at = now, now + period
        self.socket.sendall(floods.masked(frame))

    def read(self) -> None:
        """Take what came; note the round trip if the answer is in it."""
        data = self._rest + self.socket.recv(65536)
        assert data, "the tunnel was closed"
        if b"\x08\x06\0\1\x08\0\6\4\0\1" in data:
            self.socket.sendall(_ARP)
        wanted = _MAGIC + struct.pack("!I", self._number)
        if self._sent_at and wanted in data:
            self.times.append((time.perf_counter() - self._sent_at) * 1000)
            self._sent_at = 0.0
        self._rest = data[-len(wanted) :]


def watch(seconds: float, period: float, fds: list[int]) -> dict[str, object]:
    """Round trips through the NAT over each tunnel, one after the other."""
    guests = [Bystander(fd, number) for number, fd in enumerate(fds)]
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


def attack(seconds: float, messages: list[bytes], fd: int, most: int = 0) -> dict[str, object]:
    """Send the flood round and round; read and forget what comes back. most: frames, 0 = no end."""
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    chunks, ends = _chunked(messages)
    sent, turn, rest = 0, 0, memoryview(b"")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not (most and sent >= most):
        if not rest:
            rest = memoryview(chunks[turn % len(chunks)])
            sent += ends[turn % len(chunks)]
            turn += 1
        readable, writable, _ = select.select([sock], [sock], [], 0.1)
        if readable:
            with contextlib.suppress(BlockingIOError):
                if not sock.recv(1 << 18):
                    return {"frames": sent, "closed": True}
        if writable:
            with contextlib.suppress(BlockingIOError):
                rest = rest[sock.send(rest) :]
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
    if what == "echo":
        echo(words[0], int(words[1]))
        return
    if what == "watch":
        _wait_for_start()
        result = watch(float(words[0]), float(words[1]), [int(word) for word in words[2:]])
    else:
        messages = floods.messages(words[1])
        _wait_for_start()
        result = attack(float(words[0]), messages, int(words[2]))
    print(json.dumps(result), flush=True)
    os._exit(0)  # the sockets stay open in the test, which closes them


if __name__ == "__main__":
    main(*sys.argv[1:])
