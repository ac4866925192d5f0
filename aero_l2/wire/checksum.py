"""The checksum of IPv4, ICMP and TCP (RFC 1071)."""

from __future__ import annotations


def internet_checksum(data: bytes) -> bytes:
    """Two octets for `data` of even length, whose checksum field holds zeros, in network order.

    With them in place the ones' complement sum of it all is 0xFFFF.
    """
    # A number modulo 0xFFFF is the sum of its 16-bit digits, but for 0xFFFF, which comes out as 0.
    total = int.from_bytes(data, "big") % 0xFFFF or (0xFFFF if any(data) else 0)
    return (0xFFFF - total).to_bytes(2, "big")
