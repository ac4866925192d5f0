"""IPv6 is off for guests, and this says so to whoever asks for a router. Pure.

Boot firmware (iPXE) waits many seconds for a router advertisement, even with a DHCPv4 lease in hand. The
advertisement here is the answer "there is no router": a lifetime of 0 (RFC 4861 §4.2: not a default router),
no prefix, no DHCPv6. Who gets it makes neither a route nor an address of it, and stops waiting. Nothing
else of IPv6 is answered.
"""

from __future__ import annotations

from typing import Final

from aero_l2.quota.bucket import TokenBucket
from aero_l2.wire.checksum import internet_checksum

IPV6_MULTICAST: Final = 0x33
"""The first octet of every frame to an IPv6 multicast group (RFC 2464 §7)."""

_PER_SECOND: Final = 1.0
_BURST: Final = 8

_ALL_NODES: Final = bytes.fromhex("ff020000000000000000000000000001")
_ROUTER_MAC: Final = bytes.fromhex("52550a000202")
_ROUTER: Final = bytes.fromhex("fe8000000000000050550afffe000202")
"""The gateway's MAC address as a link-local address (RFC 4291 appendix A); nothing answers there."""
_ICMPV6: Final = 58
_SOLICITATION: Final = 133
_ADVERTISEMENT: Final = 134
_ETHERTYPE: Final = b"\x86\xdd"
_HOP_LIMIT: Final = 255
_HEADERS: Final = 14 + 40


def is_solicitation(frame: bytes) -> bool:
    """Whether an Ethernet frame is a router solicitation (RFC 4861 §4.1) without extension headers."""
    return (
        len(frame) >= _HEADERS + 8
        and frame[12:14] == _ETHERTYPE
        and frame[14] >> 4 == 6
        and frame[20] == _ICMPV6
        and frame[21] == _HOP_LIMIT
        and frame[_HEADERS] == _SOLICITATION
        and frame[_HEADERS + 1] == 0
    )


def advertisement() -> bytes:
    """The Ethernet frame that tells every node: not a default router, no address, no DHCPv6."""
    # type, code, checksum, hop limit unspecified, no flags, lifetime 0, reachable and retransmission unset
    message = bytes((_ADVERTISEMENT, 0)) + bytes(14)
    pseudo = _ROUTER + _ALL_NODES + len(message).to_bytes(4, "big") + bytes((0, 0, 0, _ICMPV6))
    message = message[:2] + internet_checksum(pseudo + message) + message[4:]
    header = b"\x60\0\0\0" + len(message).to_bytes(2, "big") + bytes((_ICMPV6, _HOP_LIMIT))
    ethernet = bytes.fromhex("333300000001") + _ROUTER_MAC + _ETHERTYPE
    return ethernet + header + _ROUTER + _ALL_NODES + message


class NoRouter:
    """Answers the router solicitations of one guest, at a bounded rate."""

    def __init__(self, now: float) -> None:
        self._bucket = TokenBucket(_PER_SECOND, _BURST, now)

    def answer(self, frame: bytes, now: float) -> bytes | None:
        """The frame for the guest that answers `frame`; None for whatever is no solicitation, or too much."""
        return _ADVERTISED if is_solicitation(frame) and self._bucket.take(1, now) else None


_ADVERTISED: Final = advertisement()
