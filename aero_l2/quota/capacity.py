"""How many tunnels the host has room for, and what of it runs out first. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Limit = Literal["setting", "files", "pids", "memory", "conntrack", "ports", "tcp"]
LIMITS: Final[tuple[Limit, ...]] = ("setting", "files", "pids", "memory", "conntrack", "ports", "tcp")
_HOSTS: Final[tuple[Limit, ...]] = ("files", "pids", "memory", "conntrack", "ports", "tcp")

MIB: Final = 1 << 20
PER_TUNNEL: Final[Mapping[Limit, int]] = {
    "pids": 1,
    "memory": 2 * MIB,
    "conntrack": 64,
    "ports": 32,
    "tcp": MIB // 8,
}
"""Its NAT process; what an idle tunnel takes, measured, and as much again for what flows; some browsing
(both); what the kernel lets one connection have to begin with (the default of tcp_rmem)."""
OUR_OWN: Final[Mapping[Limit, int]] = {
    "pids": 32,
    "memory": 64 * MIB,
    "conntrack": 1024,
    "ports": 256,
    "tcp": 0,
}
"""Not for tunnels: nft(8) during set-ups, what server and netd still grow by, connections to the server."""
SPARED: Final[Mapping[Limit, int]] = {"pids": 0, "memory": 20, "conntrack": 10, "ports": 10, "tcp": 0}
"""The part, one in so many, that is left for others where that is more; 0 = none."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What there is of something: in all, and not taken. by: who gives it, for people."""

    total: int
    left: int
    by: str


@dataclass(frozen=True, slots=True)
class Room:
    """What the host has now; None where nothing limits it, or nothing says so."""

    pids: Stock | None = None
    memory: Stock | None = None
    conntrack: Stock | None = None
    ports: Stock | None = None
    tcp: Stock | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """Tunnels at once that something allows, those included that are open; None = any number.

    stock: what there is of it, where that was looked at.
    """

    tunnels: int | None
    by: str
    stock: Stock | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """What each limit allows, and which one binds."""

    shares: Mapping[Limit, Share]

    @property
    def binding(self) -> Limit | None:
        """The limit that allows the fewest tunnels; of equals the first in `LIMITS`. None without any."""
        bounded = [(tunnels, name) for name in LIMITS if (tunnels := self.shares[name].tunnels) is not None]
        return min(bounded, key=lambda one: one[0])[1] if bounded else None

    @property
    def text(self) -> str:
        """How many and why, in words for people."""
        if self.binding is None:
            return "any number of tunnels"
        share = self.shares[self.binding]
        return f"at most {share.tunnels} tunnels at once, by {share.by}"

    def exhausted(self, active: int) -> str | None:
        """Which of the host's limits forbids one tunnel more, in words for people; None where none does."""
        for name in _HOSTS:
            share = self.shares[name]
            if share.tunnels is not None and active >= share.tunnels:
                return f"the host has no {_MISSING[name]} left for another tunnel ({share.by})"
        return None


_MISSING: Final[Mapping[Limit, str]] = {
    "files": "file descriptors",
    "pids": "processes",
    "memory": "memory",
    "conntrack": "room to track connections",
    "ports": "UDP ports",
    "tcp": "memory for TCP connections",
}


def capacity(setting: int, files: int, room: Room, active: int) -> Capacity:
    """What there is room for while `active` tunnels are open. setting, files: tunnels; 0 = no limit."""
    stocks: dict[Limit, Stock | None] = {
        "pids": room.pids,
        "memory": room.memory,
        "conntrack": room.conntrack,
        "ports": room.ports,
        "tcp": room.tcp,
    }
    shares: dict[Limit, Share] = {
        "setting": Share(setting or None, "AERO_L2_MAX_CONNECTIONS"),
        "files": Share(files or None, "RLIMIT_NOFILE"),
    }
    for name, stock in stocks.items():
        shares[name] = (
            Share(None, "") if stock is None else Share(active + _fits(name, stock), stock.by, stock)
        )
    return Capacity(shares)


def _fits(name: Limit, stock: Stock) -> int:
    """Tunnels more that fit into what is left."""
    part = SPARED[name]
    spared = max(OUR_OWN[name], stock.total // part if part else 0)
    return max(0, stock.left - spared) // PER_TUNNEL[name]
