"""Frames that come while the NAT process still opens its TAP (about 20 ms), which the kernel would drop.

DHCP, DNS, ARP and ping of the gateway need no NAT and do not wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MAX_FRAMES: Final = 96
"""More than a guest sends in that time that has just got its address; what comes on top is lost.

All are written at once, so they have to fit into the queue in front of the NAT process
(`netns.link.NAT_QUEUE`, 100).
"""
_IPV4: Final = b"\x08\x00"
_LAN: Final = b"\x0a\x00\x02"
_BROADCAST: Final = b"\xff\xff\xff\xff"


class EarlyFrames:
    """Keeps frames for the internet, in order, until they are taken."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []

    def sort(self, frames: Iterable[bytes]) -> tuple[list[bytes], int]:
        """Those of `frames` that need not wait, and how many there was no room for."""
        now, lost = [], 0
        for frame in frames:
            if not _leaves_the_lan(frame):
                now.append(frame)
            elif len(self._kept) < MAX_FRAMES:
                self._kept.append(frame)
            else:
                lost += 1
        return now, lost

    def take(self) -> list[bytes]:
        """What was kept; nothing is afterwards."""
        kept, self._kept = self._kept, []
        return kept


def _leaves_the_lan(frame: bytes) -> bool:
    """Whether it is an IPv4 packet (RFC 894) to an address other than the LAN's."""
    target = frame[30:34]
    return frame[12:14] == _IPV4 and target[:3] != _LAN and target != _BROADCAST
