"""A tunnel's namespace as netd makes it, without proxy and NAT process: the test holds both of its TAPs."""

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network

from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from netns import nftables, tap
from netns.namespace import Interior, Workshop, make_interior
from netns.spec import GATEWAY, GATEWAY_MAC, GUEST, NAT_HOST, SegmentSpec

GUEST_MAC = "02:00:00:00:00:15"
NFT = "/usr/sbin/nft"
_QUIET_S = 0.05
"""A packet that was let through is on the other TAP by then: its queue may be emptied by another core."""


@dataclass
class Segment:
    """Frames in and out on the guest's side (`tap`) and on the NAT's (`nat`)."""

    interior: Interior
    nat: int

    def send(self, packet: Packet, source: str = GUEST_MAC, target: str = GATEWAY_MAC) -> None:
        """An IP packet (or ARP) from the guest."""
        os.write(self.interior.tap, bytes(Ether(src=source, dst=target) / packet))

    def send_from_nat(self, packet: Packet) -> None:
        """An IP packet from the NAT process."""
        mac = self.nat_mac
        os.write(self.nat, bytes(Ether(src="52:55:0a:00:03:02", dst=mac) / packet))

    def judge(self, *packets: Packet, leaving: int = 0) -> tuple[list[Packet], list[Packet]]:
        """Send packets of the guest; what came back to it, and what left towards the NAT.

        Waits for ``leaving`` packets there, and a moment for any more.

        A ping of the gateway behind them says when they have been judged: one TAP keeps the order.
        """
        for packet in packets:
            self.send(packet)
        number = int(time.monotonic_ns() & 0xFFFF)
        self.send(IP(src=str(GUEST), dst=str(GATEWAY)) / ICMP(id=0xA3A3, seq=number))
        back: list[Packet] = []
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for frame in self._read(self.interior.tap, 0.1):
                if ICMP in frame and frame[ICMP].type == 0 and frame[ICMP].seq == number:
                    return back, self._read_nat(leaving)
                if ARP in frame:
                    self._answer_arp(frame[ARP])
                else:
                    back.append(frame)
        raise AssertionError("the gateway answers no ping")

    def _answer_arp(self, asked: Packet) -> None:
        """As a guest does; else the gateway forgets it after half a minute."""
        if asked.op == 1 and asked.pdst == str(GUEST):
            reply = ARP(op=2, hwsrc=GUEST_MAC, psrc=str(GUEST), hwdst=asked.hwsrc, pdst=asked.psrc)
            self.send(reply)

    def read_guest(self, timeout_s: float) -> list[Packet]:
        """What waits for the guest, ARP included; up to ``timeout_s`` for the first."""
        return self._read(self.interior.tap, timeout_s)

    def _read_nat(self, count: int) -> list[Packet]:
        frames: list[Packet] = []
        while len(frames) < count:
            more = self._read(self.nat, 10.0)
            assert more, f"only {len(frames)} of {count} packets left towards the NAT"
            frames += more
        return frames + self._read(self.nat, _QUIET_S, _QUIET_S)

    def nat_waits(self, timeout_s: float) -> bool:
        """Whether there is a packet for the NAT, or comes in time."""
        return bool(select.select([self.nat], [], [], timeout_s)[0])

    def become_hosts(self, *networks: IPv4Network) -> None:
        """From now on these are the host's own addresses."""
        with socket.socket(fileno=os.dup(self.interior.netlink)) as netlink:
            netlink.settimeout(5)
            nftables.replace_host_set(netlink, networks)

    def counters(self) -> dict[str, int]:
        """Packets by named counter."""
        with socket.socket(fileno=os.dup(self.interior.netlink)) as netlink:
            return nftables.read_counters(netlink)

    @cached_property
    def nat_mac(self) -> str:
        """MAC of the namespace's side of the NAT link, learnt by ARP.

        Asked until it is answered: for a moment after its TAP was opened, what the link sends is dropped.
        """
        ours = "52:55:0a:00:03:02"
        request = ARP(op=1, psrc=str(NAT_HOST), pdst="10.0.3.100", hwsrc=ours)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            os.write(self.nat, bytes(Ether(src=ours, dst="ff:ff:ff:ff:ff:ff") / request))
            for frame in self._read(self.nat, 0.1):
                if ARP in frame and frame[ARP].op == 2:
                    return str(frame[ARP].hwsrc)
        raise AssertionError("no ARP answer on the NAT's side")

    @staticmethod
    def _read(fd: int, first_s: float, next_s: float = 0.0) -> list[Packet]:
        frames = []
        while select.select([fd], [], [], next_s if frames else first_s)[0]:
            frames.append(Ether(os.read(fd, 65536)))
        return frames


@contextmanager
def segment(
    spec: SegmentSpec,
    hosts: frozenset[IPv4Network] = frozenset(),
    *,
    allow_ping: bool = False,
    keep_nat: bool = True,
    known_guest: bool = True,
) -> Iterator[Segment]:
    """Make a namespace; without ``keep_nat`` its tap1 is left for a NAT process.

    The gateway knows the guest's MAC, unless ``known_guest`` is false.
    """
    workshop = Workshop(threads=1)

    def build() -> Segment:
        interior = make_interior(spec, NFT, hosts, allow_ping)
        return Segment(interior, tap.open_tap("tap1") if keep_nat else -1)

    made = workshop.submit(build).result(timeout=30)
    try:
        if keep_nat:
            assert made.nat_mac
        if known_guest:
            hello = ARP(op=1, hwsrc=GUEST_MAC, psrc=str(GUEST), pdst=str(GATEWAY))
            made.send(hello, target="ff:ff:ff:ff:ff:ff")
        yield made
    finally:
        if keep_nat:
            os.close(made.nat)
        made.interior.close()
        workshop.close()
