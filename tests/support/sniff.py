"""Watches every packet of a namespace, on all its interfaces, also those that no socket is there to take
(packet(7))."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from support.ns import Namespace

_ETH_P_ALL = 0x0003
_SO_RCVBUFFORCE = 33  # socket(7); Python has no name for it
_BUFFER = 16 * 1024 * 1024


class Sniffer:
    """What passed since it was made: read with ``packets``."""

    def __init__(self, tap: socket.socket) -> None:
        self._socket = tap
        self._seen: list[bytes] = []

    def frames(self) -> list[bytes]:
        """Every frame so far."""
        while True:
            try:
                self._seen.append(self._socket.recv(65536))
            except BlockingIOError:
                return self._seen

    def to_port(self, port: int) -> list[Packet]:
        """IPv4 packets so far whose TCP or UDP destination port is ``port``."""
        parsed = (Ether(frame) for frame in self.frames())
        return [p for p in parsed if IP in p and getattr(p[IP].payload, "dport", None) == port]

    def containing(self, data: bytes, *, but_port: int) -> list[bytes]:
        """Frames so far with ``data`` somewhere in them, except TCP from or to ``but_port``: the tunnels
        themselves."""
        return [frame for frame in self.frames() if data in frame and not _is_tcp_of(frame, but_port)]


def _is_tcp_of(frame: bytes, port: int) -> bool:
    packet = Ether(frame)
    return TCP in packet and port in (packet[TCP].sport, packet[TCP].dport)


@contextmanager
def sniffer(where: Namespace) -> Iterator[Sniffer]:
    """Watch a namespace during the block."""
    with where.open_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        tap.setblocking(False)
        yield Sniffer(tap)
