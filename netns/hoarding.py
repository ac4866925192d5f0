"""Which connections have to end so that tunnels together hold no more TCP memory than they may. Pure."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

RELIEF: Final = 8
"""One part in so many of the limit is freed beyond it, so that the next look need not begin again."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A connection of a tunnel, by the inode of its socket, and the bytes that the kernel holds for it."""

    tunnel: int
    inode: int
    held: int


def by_tunnel(holdings: Iterable[Holding]) -> Mapping[int, int]:
    """Bytes of each tunnel."""
    sums: dict[int, int] = {}
    for one in holdings:
        sums[one.tunnel] = sums.get(one.tunnel, 0) + one.held
    return sums


def surplus(holdings: Iterable[Holding], limit: int) -> list[Holding]:
    """Those to end where all are over ``limit``: who holds the most loses his largest, again and again."""
    connections: dict[int, list[Holding]] = {}
    for one in sorted(holdings, key=lambda one: one.held):
        connections.setdefault(one.tunnel, []).append(one)
    sums = by_tunnel(one for its in connections.values() for one in its)
    left = sum(sums.values())
    if left <= limit:
        return []
    most = [(-held, tunnel) for tunnel, held in sums.items()]
    heapq.heapify(most)
    ended: list[Holding] = []
    while left > limit - limit // RELIEF:
        held, tunnel = heapq.heappop(most)
        largest = connections[tunnel].pop()
        ended.append(largest)
        left -= largest.held
        if connections[tunnel]:
            heapq.heappush(most, (held + largest.held, tunnel))
    return ended
