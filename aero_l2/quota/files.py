"""How many tunnels and waiting clients the file descriptors of the process suffice for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEAST_FILES: Final = 256
"""With fewer the program does not start: idle clients could keep every tunnel out."""
PER_TUNNEL: Final = 27
"""Nine handles of the segment and a second of one, the WebSocket, and sixteen connections to its DNS."""
PER_REDIRECTION: Final = 18
"""Two sockets more of a tunnel whose DNS to other servers is redirected, and sixteen connections to them."""
PER_QUESTION: Final = 2
"""A pending DNS question asks up to two upstreams at a time."""
OF_OUR_OWN: Final = 64
MOST_WAITING: Final = 256


@dataclass(frozen=True, slots=True)
class FileBudget:
    """`tunnels` at a time (what was wanted, or fewer), `waiting`: connections that are not tunnels yet."""

    tunnels: int
    waiting: int


def file_budget(
    limit: int, wanted_tunnels: int, max_pending_dns: int, *, redirects_dns: bool = False
) -> FileBudget:
    """Divide `limit` descriptors (RLIMIT_NOFILE, at least `LEAST_FILES`); 0 wanted tunnels = as many as go.

    Waiting clients and DNS take a quarter each at most, so that neither can starve the tunnels.
    """
    waiting = min(MOST_WAITING, limit // 4)
    dns = min(PER_QUESTION * max_pending_dns, limit // 4) if max_pending_dns else limit // 4
    per_tunnel = PER_TUNNEL + (PER_REDIRECTION if redirects_dns else 0)
    enough_for = max(1, (limit - OF_OUR_OWN - waiting - dns) // per_tunnel)
    return FileBudget(min(wanted_tunnels, enough_for) if wanted_tunnels else enough_for, waiting)
