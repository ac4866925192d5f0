"""How many tunnels and waiting clients the file descriptors of the process suffice for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEAST_FILES: Final = 256
"""With fewer the program does not start: idle clients could keep every tunnel out."""
PER_TUNNEL: Final = 11
"""Nine handles of the segment and a second of one, and the WebSocket."""
PER_REDIRECTION: Final = 2
"""Sockets more of a tunnel whose DNS to other servers is redirected."""
PER_CAPTURE: Final = 1
"""The file of a tunnel that may be captured."""
PER_AUDIT: Final = 1
"""More of a tunnel whose refused packets are told of."""
PER_QUESTION: Final = 2
"""A pending DNS question asks up to two upstreams at a time."""
OF_OUR_OWN: Final = 64
MOST_WAITING: Final = 256


@dataclass(frozen=True, slots=True)
class FileBudget:
    """What they suffice for at a time.

    tunnels: as many as go. waiting: connections that are not tunnels yet. dns_connections: of guests, to the
    DNS of all tunnels together.
    """

    tunnels: int
    waiting: int
    dns_connections: int


def file_budget(
    limit: int,
    max_pending_dns: int,
    *,
    redirects_dns: bool = False,
    captures: bool = False,
    audits: bool = False,
) -> FileBudget:
    """Divide `limit` descriptors (RLIMIT_NOFILE, at least `LEAST_FILES`).

    Waiting clients and questions of DNS take a quarter each at most, connections to DNS an eighth, so that
    none of them can starve the tunnels.
    """
    waiting = min(MOST_WAITING, limit // 4)
    dns = min(PER_QUESTION * max_pending_dns, limit // 4) if max_pending_dns else limit // 4
    connections = limit // 8
    per_tunnel = PER_TUNNEL + (PER_REDIRECTION if redirects_dns else 0) + (PER_CAPTURE if captures else 0)
    per_tunnel += PER_AUDIT if audits else 0
    enough_for = max(1, (limit - OF_OUR_OWN - waiting - dns - connections) // per_tunnel)
    return FileBudget(enough_for, waiting, connections)
