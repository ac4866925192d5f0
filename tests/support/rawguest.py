"""A guest that speaks by raw frames: it can say what no well-behaved network stack would.

Packets are built and read by scapy, which knows nothing of the proxy. While it waits for an answer it
answers ARP for its own address, as a real guest does.
"""

import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal, TypeVar

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from support import addresses as at
from support.proxy import Proxy
from support.tunnel import Tunnel

_T = TypeVar("_T")
BROADCAST = "ff:ff:ff:ff:ff:ff"
MAC = "02:00:00:00:00:0f"
_ADMINISTRATIVELY_PROHIBITED = (3, 13)  # RFC 1812 §5.2.7.1
Verdict = Literal["answered", "reset", "prohibited", "unreachable"]


class RawGuest:
    """One guest on one tunnel, with the static address unless ``dhcp`` is called."""

    def __init__(self, tunnel: Tunnel, mac: str = MAC) -> None:
        self.tunnel = tunnel
        self.mac = mac
        self.seen: list[Packet] = []  # every frame that came, for failure messages and "nothing came" checks
        self._ports = itertools.count(20000)

    def frame(self, packet: Packet, to: str = at.GATEWAY_MAC) -> Packet:
        """The packet in an Ethernet frame to the gateway (or another MAC address)."""
        return Ether(src=self.mac, dst=to) / packet

    async def send(self, packet: Packet, to: str = at.GATEWAY_MAC) -> None:
        """Send a packet to the gateway's MAC address, or to another."""
        await self.tunnel.send(bytes(self.frame(packet, to)))

    async def expect(self, match: Callable[[Packet], _T | None], timeout_s: float = 10) -> _T:
        """Read frames until ``match`` gives something other than None; raises TimeoutError."""
        end = time.monotonic() + timeout_s
        while True:
            packet = Ether(await self.tunnel.receive(max(0.0, end - time.monotonic())))
            self.seen.append(packet)
            await self._answer_arp(packet)
            if (found := match(packet)) is not None:
                return found

    async def exchange(
        self,
        packet: Packet,
        match: Callable[[Packet], _T | None],
        timeout_s: float = 15,
        again_s: float = 1.0,
    ) -> _T:
        """Send, and send again each ``again_s`` seconds, until ``match`` is satisfied; raises
        TimeoutError."""
        end = time.monotonic() + timeout_s
        while True:
            await self.send(packet)
            try:
                return await self.expect(match, again_s)
            except TimeoutError:
                if time.monotonic() > end:
                    raise

    async def _answer_arp(self, packet: Packet) -> None:
        if ARP in packet and packet[ARP].op == 1 and packet[ARP].pdst == at.GUEST:
            asked = packet[ARP]
            reply = ARP(op=2, hwsrc=self.mac, psrc=at.GUEST, hwdst=asked.hwsrc, pdst=asked.psrc)
            await self.send(reply, asked.hwsrc)

    async def arp(self, address: str) -> str:
        """The MAC address that answers for an address (RFC 826)."""
        question = ARP(op=1, hwsrc=self.mac, psrc=at.GUEST, pdst=address)

        def match(packet: Packet) -> str | None:
            ours = ARP in packet and packet[ARP].op == 2 and packet[ARP].psrc == address
            return str(packet[ARP].hwsrc) if ours else None

        await self.send(question, BROADCAST)
        return await self.expect(match)

    async def _dhcp(self, options: list[object]) -> dict[str, object]:
        xid = next(self._ports)
        message = (
            IP(src="0.0.0.0", dst="255.255.255.255")
            / UDP(sport=68, dport=67)
            / BOOTP(chaddr=bytes.fromhex(self.mac.replace(":", "")), xid=xid)
            / DHCP(options=[*options, "end"])
        )

        def match(packet: Packet) -> dict[str, object] | None:
            if BOOTP not in packet or packet[BOOTP].xid != xid:
                return None
            found = {option[0]: option[1] for option in packet[DHCP].options if isinstance(option, tuple)}
            return {**found, "address": packet[BOOTP].yiaddr}

        await self.send(message, BROADCAST)
        return await self.expect(match)

    async def dhcp(self) -> dict[str, object]:
        """DISCOVER to ACK (RFC 2131 §3.1): the lease's options by name, and ``address``."""
        offer = await self._dhcp([("message-type", "discover")])
        assert offer["message-type"] == 2, offer
        request: list[object] = [
            ("message-type", "request"),
            ("server_id", offer["server_id"]),
            ("requested_addr", offer["address"]),
        ]
        lease = await self._dhcp(request)
        assert lease["message-type"] == 5, lease
        return lease

    async def ping(self, address: str) -> bool:
        """Whether an ICMP echo is answered rather than refused."""
        return await self.try_icmp(address) == "answered"

    async def try_icmp(self, address: str, data: bytes = b"try") -> Verdict:
        """What an ICMP echo request meets."""
        return await self._judge(
            IP(src=at.GUEST, dst=address) / ICMP(id=next(self._ports), seq=1) / Raw(data)
        )

    async def try_tcp(self, address: str, port: int) -> Verdict:
        """What a SYN meets."""
        number = next(self._ports)
        syn = IP(src=at.GUEST, dst=address) / TCP(
            sport=number, dport=port, flags="S", seq=1000, options=[("MSS", 1460)]
        )
        return await self._judge(syn)

    async def try_udp(self, address: str, port: int, data: bytes = b"try") -> Verdict:
        """What a datagram meets."""
        return await self._judge(
            IP(src=at.GUEST, dst=address) / UDP(sport=next(self._ports), dport=port) / data
        )

    async def udp(
        self, address: str, port: int, data: bytes, sport: int | None = None, again_s: float = 1.0
    ) -> bytes:
        """Send a datagram and return what is answered; raises TimeoutError."""
        number = sport or next(self._ports)

        def match(packet: Packet) -> bytes | None:
            ours = UDP in packet and (packet[IP].src, packet[UDP].sport, packet[UDP].dport) == (
                address,
                port,
                number,
            )
            return bytes(packet[UDP].payload) if ours and ICMP not in packet else None

        return await self.exchange(
            IP(src=at.GUEST, dst=address) / UDP(sport=number, dport=port) / Raw(data), match, again_s=again_s
        )

    async def resolve(self, name: str, kind: str = "A") -> DNS:
        """The gateway's answer to a DNS question over UDP."""
        number = next(self._ports)
        question = DNS(id=number, rd=1, qd=DNSQR(qname=name, qtype=kind))
        return DNS(await self.udp(at.GATEWAY, 53, bytes(question), number))

    def drain(self) -> list[bytes]:
        """Every frame that came and was not read yet, and those that were."""
        while not self.tunnel.frames.empty():
            self.seen.append(Ether(self.tunnel.frames.get_nowait()))
        return [bytes(packet) for packet in self.seen]

    async def echo(self, data: bytes) -> None:
        """Prove that this tunnel works end to end: a datagram to the internet and back."""
        assert await self.udp(at.WEB, at.ECHO_PORT, data, again_s=0.2) == data

    async def _judge(self, packet: Packet) -> Verdict:
        return await self.exchange(packet, lambda reply: _verdict(packet, reply))


def _verdict(sent: Packet, reply: Packet) -> Verdict | None:
    """How ``reply`` answers ``sent``; None if it belongs to something else."""
    if IP not in reply:
        return None
    if ICMP in reply and reply[ICMP].type == 3:
        return _refusal(sent, reply)
    if reply[IP].src != sent[IP].dst or type(reply[IP].payload) is not type(sent[IP].payload):
        return None
    if ICMP in sent:
        return "answered" if (reply[ICMP].type, reply[ICMP].id) == (0, sent[ICMP].id) else None
    if (reply[IP].payload.sport, reply[IP].payload.dport) != (sent[IP].payload.dport, sent[IP].payload.sport):
        return None
    return "reset" if TCP in reply and reply[TCP].flags.R else "answered"


def _refusal(sent: Packet, reply: Packet) -> Verdict | None:
    """An ICMP error quotes the header that it is about and at least eight bytes more (RFC 792)."""
    original, quoted = IP(bytes(sent)), IP(bytes(reply[ICMP].payload))
    if (quoted.src, quoted.dst, quoted.proto) != (original.src, original.dst, original.proto):
        return None
    if bytes(quoted.payload)[:4] != bytes(original.payload)[:4]:
        return None
    code = (reply[ICMP].type, reply[ICMP].code)
    return "prohibited" if code == _ADMINISTRATIVELY_PROHIBITED else "unreachable"


@asynccontextmanager
async def raw_guest(proxy: Proxy, mac: str = MAC) -> AsyncIterator[RawGuest]:
    """A guest on a new tunnel of the proxy."""
    async with proxy.tunnel() as tunnel:
        yield RawGuest(tunnel, mac)
