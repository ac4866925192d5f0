"""A guest's network stack: frames in, frames out, the time passed in. Pure.

One card, one address. It answers ARP and ping for its own address, keeps what was asked for and nothing
else, and drops what is damaged. All it keeps is bounded, whatever comes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

from dpkt.ip import IP_PROTO_ICMP, IP_PROTO_TCP, IP_PROTO_UDP
from dpkt.tcp import TH_ACK, TH_FIN, TH_RST, TH_SYN

from aero_l2.probe import packets
from aero_l2.probe.packets import BROADCAST, BROADCAST_MAC, UNSPECIFIED, Way
from aero_l2.probe.tcp import Connection, Fault, Ports

MTU: Final = 1500
MAX_DATAGRAMS: Final = 64
MAX_CONNECTIONS: Final = 64
_HEADERS: Final = 40
_MASK: Final = 0xFFFF_FFFF
PROHIBITED_CODES: Final = frozenset((9, 10, 13))
"""Codes of "unreachable" that say that a policy forbids it (RFC 1812 §5.2.7.1)."""


@dataclass(slots=True)
class Socket:
    """A UDP port: what came to it, and what ICMP says of what went out of it."""

    port: int
    received: deque[packets.Datagram] = field(default_factory=lambda: deque(maxlen=MAX_DATAGRAMS))
    error: packets.Unreachable | None = None


@dataclass(slots=True)
class Ping:
    """An echo request that waits for its answer."""

    target: IPv4Address
    data: bytes
    reply: bytes | None = None
    error: packets.Unreachable | None = None


class Stack:
    """What `receive` and the others want to send is in `take_frames`."""

    def __init__(self, mac: bytes) -> None:
        self.mac = mac
        self.interface: IPv4Interface | None = None
        self.gateway: IPv4Address | None = None
        self.mtu = MTU
        self._frames: list[bytes] = []
        self._neighbours: dict[IPv4Address, bytes | None] = {}  # only those that were asked for
        self._sockets: dict[int, Socket] = {}
        self._pings: dict[int, Ping] = {}
        self._connections: dict[tuple[IPv4Address, Ports], Connection] = {}

    # -- for whoever uses it

    @property
    def address(self) -> IPv4Address:
        """Its own; unspecified before there is a lease."""
        return self.interface.ip if self.interface is not None else UNSPECIFIED

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do."""
        due = [c.deadline for c in self._connections.values() if c.deadline is not None]
        return min(due, default=None)

    def take_frames(self) -> list[bytes]:
        """What is to be sent now."""
        for (remote, _), connection in self._connections.items():
            self._frames += [packets.segment(self._way(remote), one) for one in connection.take_segments()]
        taken, self._frames = self._frames, []
        return taken

    def configure(self, interface: IPv4Interface, gateway: IPv4Address, mtu: int) -> None:
        """Take a lease's address."""
        self.interface, self.gateway, self.mtu = interface, gateway, min(mtu, MTU)

    def next_hop(self, target: IPv4Address) -> IPv4Address:
        """Who on the LAN takes a packet for ``target``."""
        on_link = self.interface is None or target in self.interface.network
        return target if on_link or self.gateway is None else self.gateway

    def ask_arp(self, target: IPv4Address) -> None:
        """Ask who has ``target``."""
        self._neighbours.setdefault(target, None)
        self._frames.append(packets.arp_request(self.mac, self.address, target))

    def neighbour(self, target: IPv4Address) -> bytes | None:
        """The MAC address of a neighbour that answered."""
        return self._neighbours.get(target)

    def ping(self, target: IPv4Address, identifier: int, data: bytes) -> Ping:
        """Send an echo request; the caller forgets it by `forget_ping`."""
        ping = self._pings.setdefault(identifier, Ping(target, data))
        self._frames.append(packets.echo(self._way(target), identifier, 1, data))
        return ping

    def forget_ping(self, identifier: int) -> None:
        """Its answer is of no use any more."""
        self._pings.pop(identifier, None)

    def open_socket(self, port: int) -> Socket:
        """A UDP port."""
        return self._sockets.setdefault(port, Socket(port))

    def close_socket(self, socket: Socket) -> None:
        """What comes for it is dropped from now on."""
        self._sockets.pop(socket.port, None)

    def send_datagram(self, socket: Socket, target: IPv4Address, port: int, data: bytes) -> None:
        """Send a datagram."""
        self._frames.append(packets.datagram(self._way(target), socket.port, port, data))

    def connect(self, target: IPv4Address, ports: Ports, initial_seq: int, now: float) -> Connection:
        """Open a TCP connection."""
        while len(self._connections) >= MAX_CONNECTIONS:
            del self._connections[next(iter(self._connections))]
        connection = self._connections[target, ports] = Connection(ports, initial_seq, self.mtu - _HEADERS)
        connection.open(now)
        return connection

    # -- what comes

    def receive(self, frame: bytes, now: float) -> None:
        """Take a frame. Never raises."""
        match packets.read(frame, self.mac):
            case packets.FromTcp() as came:
                self._receive_segment(came, now)
            case packets.Datagram() as came:
                self._receive_datagram(came)
            case packets.Arp() as came:
                self._receive_arp(came)
            case packets.Echo() as came:
                self._receive_echo(came)
            case packets.Unreachable() as came:
                self._receive_error(came)

    def flush(self) -> None:
        """After each batch of frames."""
        for connection in self._connections.values():
            connection.flush()

    def tick(self, now: float) -> None:
        """Send again what is due."""
        for connection in self._connections.values():
            connection.tick(now)

    def _receive_arp(self, came: packets.Arp) -> None:
        if came.address in self._neighbours and not came.is_request:
            self._neighbours[came.address] = came.mac
        if came.is_request and self.interface is not None and came.target == self.address:
            self._frames.append(packets.arp_reply(self.mac, self.address, came))

    def _receive_echo(self, came: packets.Echo) -> None:
        if came.is_request:
            if self.interface is not None and came.destination == self.address:
                way = Way(self.mac, self.address, came.mac, came.source)
                self._frames.append(packets.echo(way, came.identifier, came.sequence, came.data, reply=True))
            return
        ping = self._pings.get(came.identifier)
        if ping is not None and ping.target == came.source and came.sequence == 1:
            ping.reply = came.data

    def _receive_datagram(self, came: packets.Datagram) -> None:
        socket = self._sockets.get(came.destination_port)
        is_ours = self.interface is None or came.destination in (self.address, BROADCAST)
        if socket is not None and is_ours and len(socket.received) < MAX_DATAGRAMS:
            socket.received.append(came)

    def _receive_segment(self, came: packets.FromTcp, now: float) -> None:
        if self.interface is None or came.destination != self.address:
            return
        got = came.segment
        ports = Ports(got.destination_port, got.source_port)
        connection = self._connections.get((came.source, ports))
        if connection is not None:
            connection.receive(got, now)
        elif not got.flags & TH_RST:
            self._frames.append(packets.segment(self._way(came.source), _reset(got)))

    def _receive_error(self, came: packets.Unreachable) -> None:
        if came.protocol == IP_PROTO_UDP:
            socket = self._sockets.get(came.local)
            if socket is not None:
                socket.error = came
        elif came.protocol == IP_PROTO_ICMP:
            ping = self._pings.get(came.local)
            if ping is not None and ping.target == came.destination:
                ping.error = came
        elif came.protocol == IP_PROTO_TCP:
            connection = self._connections.get((came.destination, Ports(came.local, came.remote)))
            if (
                connection is not None and not connection.is_established
            ):  # later ones are soft (RFC 5927 §5.2)
                prohibited = came.code in PROHIBITED_CODES
                connection.fail(Fault.PROHIBITED if prohibited else Fault.UNREACHABLE)

    def _way(self, target: IPv4Address) -> Way:
        """Broadcast while the next hop is not known: a frame like that finds it, or nobody."""
        if target == BROADCAST:
            return Way(self.mac, self.address, BROADCAST_MAC, target)
        mac = self._neighbours.get(self.next_hop(target)) or BROADCAST_MAC
        return Way(self.mac, self.address, mac, target)


def _reset(got: packets.Segment) -> packets.Segment:
    """The answer to a segment of no connection (RFC 9293 §3.10.7.1)."""
    ports = got.destination_port, got.source_port
    if got.flags & TH_ACK:
        return packets.Segment(*ports, got.ack, 0, TH_RST, 0)
    size = len(got.data) + bool(got.flags & TH_SYN) + bool(got.flags & TH_FIN)
    return packets.Segment(*ports, 0, (got.seq + size) & _MASK, TH_RST | TH_ACK, 0)
