"""A server that plays a LAN by script, rightly or wrongly at any point: what no real proxy would do.

Frames are read and written by scapy, DHCP by the proxy's own server.
"""

from __future__ import annotations

import http
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import dns.message
from scapy.layers.dhcp import BOOTP
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from websockets import Headers, Subprotocol
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from aero_l2.services.dhcp import reply as dhcp
from support import addresses as at

FRAME, PING, PONG = 0, 1, 2
BROADCAST = "ff:ff:ff:ff:ff:ff"


def message(kind: int, payload: bytes) -> bytes:
    """One protocol message."""
    return bytes((0xA2, 3, kind, 0)) + payload


@dataclass
class Lan:
    """silent: of "pong", "offer", "ack", "arp", "icmp", "dns", "udp", "tcp" what is never answered.

    close_at: one of these; then the tunnel is closed with `close`. refuse: an HTTP answer instead of the
    tunnel: status, body. extra: frames that come before each answer. lease, dns_reply and the like: change an
    answer. said: what every TCP port says to the first it gets, and its flags.
    """

    silent: set[str] = field(default_factory=set)
    close_at: str = ""
    close: tuple[int, str] = (1001, "shutting down")
    refuse: tuple[int, str] | None = None
    extra: list[bytes] = field(default_factory=list)
    lease: Callable[[bytes], bytes] = lambda wire: wire
    dns_reply: Callable[[dns.message.Message], bytes] = lambda reply: reply.to_wire()
    udp_reply: Callable[[bytes], bytes] = lambda data: data
    icmp_reply: Callable[[bytes], bytes] = lambda data: data
    said: tuple[bytes, str] = (b"HTTP/1.1 200 OK\r\n\r\n", "FPA")
    requests: list[Headers] = field(default_factory=list)
    url: str = ""

    def answers(self, packet: Packet) -> Iterable[tuple[str, Packet]]:
        """What a frame of the guest is answered with, and the word for it."""
        if ARP in packet and packet[ARP].op == 1:
            asked = packet[ARP]
            yield (
                "arp",
                ARP(op=2, hwsrc=at.GATEWAY_MAC, psrc=asked.pdst, hwdst=asked.hwsrc, pdst=asked.psrc),
            )
        elif BOOTP in packet:
            answer = dhcp.answer(bytes(packet[UDP].payload))
            assert answer is not None
            word = "offer" if b"\x35\x01\x02" in answer.payload else "ack"
            wire = self.lease(answer.payload)
            yield (
                word,
                IP(src=at.GATEWAY, dst=str(answer.destination)) / UDP(sport=67, dport=68) / Raw(wire),
            )
        elif ICMP in packet:
            back = IP(src=packet[IP].dst, dst=packet[IP].src)
            echo = ICMP(type=0, id=packet[ICMP].id, seq=packet[ICMP].seq)
            yield "icmp", back / echo / Raw(self.icmp_reply(bytes(packet[ICMP].payload)))
        elif UDP in packet:
            yield self._datagram(packet)
        elif TCP in packet:
            yield from (("tcp", one) for one in self._segments(packet))

    def _datagram(self, packet: Packet) -> tuple[str, Packet]:
        data = bytes(packet[UDP].payload)
        back = IP(src=packet[IP].dst, dst=packet[IP].src) / UDP(
            sport=packet[UDP].dport, dport=packet[UDP].sport
        )
        if packet[UDP].dport == 53:
            query = dns.message.from_wire(data)
            return "dns", back / Raw(self.dns_reply(dns.message.make_response(query)))
        return "udp", back / Raw(self.udp_reply(data))

    def _segments(self, packet: Packet) -> Iterable[Packet]:
        """A port that answers the first data it gets by `said`, whatever that is."""
        tcp, data = packet[TCP], bytes(packet[TCP].payload)
        back = IP(src=packet[IP].dst, dst=packet[IP].src)
        ends = {"sport": tcp.dport, "dport": tcp.sport}
        if "S" in tcp.flags:
            yield back / TCP(**ends, flags="SA", seq=1000, ack=tcp.seq + 1)
        elif data:
            answer, flags = self.said
            yield back / TCP(**ends, flags=flags, seq=1001, ack=tcp.seq + len(data)) / Raw(answer)


async def _play(lan: Lan, socket: ServerConnection) -> None:
    async def say(word: str, payload: bytes) -> bool:
        if lan.close_at == word:
            await socket.close(*lan.close)
            return False
        if word not in lan.silent:
            await socket.send(payload)
        return True

    async for got in socket:
        assert isinstance(got, bytes)
        kind, payload = got[2], got[4:]
        if kind == PING and not await say("pong", message(PONG, payload)):
            return
        if kind != FRAME:
            continue
        for frame in lan.extra:
            await socket.send(message(FRAME, frame))
        packet = Ether(payload)
        for word, answer in lan.answers(packet):
            frame = bytes(Ether(src=at.GATEWAY_MAC, dst=packet.src) / answer)
            if not await say(word, message(FRAME, frame)):
                return


@asynccontextmanager
async def playing(lan: Lan) -> AsyncIterator[Lan]:
    """Serve it on loopback; its address is in ``url``."""

    def judge(_: ServerConnection, request: Request) -> Response | None:
        lan.requests.append(request.headers)
        if lan.refuse is None:
            return None
        status, body = lan.refuse
        wire = body.encode()
        headers = Headers({"Content-Length": str(len(wire)), "Connection": "close"})
        return Response(status, http.HTTPStatus(status).phrase, headers, wire)

    protocols = [Subprotocol("aero-l2-tunnel-v1")]
    async with serve(
        lambda socket: _play(lan, socket), at.LOOPBACK, 0, subprotocols=protocols, process_request=judge
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        lan.url = f"ws://{at.LOOPBACK}:{port}/l2"
        yield lan
