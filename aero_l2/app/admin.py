"""The admin socket, joined to the server (`aero_l2.admin`, docs/admin.md)."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable

from aero_l2.admin.commands import Commands, Facts, Server
from aero_l2.admin.server import AdminServer
from aero_l2.config import Settings
from aero_l2.door.listening import shown
from aero_l2.door.server import DoorServer
from aero_l2.session.lifecycle import Phase
from netns.adminsocket import FDS_VARIABLE
from netns.client import NetdClient

_REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "::1"}

AdminFiles = tuple[socket.socket, int]
"""The listening socket, and the descriptor of its file."""


def handed_over() -> AdminFiles | None:
    """Those that the supervisor names, if it does."""
    descriptors = [int(fd) for fd in os.environ.pop(FDS_VARIABLE, "").split(",") if fd]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return (socket.socket(fileno=descriptors[0]), descriptors[1]) if descriptors else None


def start_admin(
    files: AdminFiles, door: DoorServer, netd: NetdClient, settings: Settings, drain: Callable[[], None]
) -> AdminServer:
    """Serve the admin socket from now on. drain: begins the end."""
    status = Status(door, netd, settings)
    server = AdminServer(*files, Commands(door.tunnels, Server(status.facts, status.version, drain)))
    server.start()
    return server


class Status:
    """The answers to `status` and `version`."""

    def __init__(self, door: DoorServer, netd: NetdClient, settings: Settings) -> None:
        self._door = door
        self._netd = netd
        self._settings = settings
        self._started = time.monotonic()

    def version(self) -> Facts:
        """As GET /version has it."""
        build = self._door.endpoints.build
        return {"version": build.version, "gitSha": build.git_sha, "builtAt": build.built_at}

    def facts(self) -> Facts:
        """How the server is."""
        door, tunnels = self._door, self._door.tunnels
        unready, capacity = door.endpoints.unready_reason(), door.pressure.capacity
        phases = Counter(tunnel.life.phase for tunnel in tunnels.live)
        return {
            **self.version(),
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started, 3),
            "listening": [shown(address) for address in door.addresses],
            "metrics_url": self._metrics_url(),
            "ready": unready is None,
            "unready_reason": unready,
            "draining": door.endpoints.draining,
            "network_helper": self._netd.available,
            "tunnels": {"active": tunnels.active, **{phase.value: phases[phase] for phase in Phase}},
            "setups": {"active": tunnels.setups.active, "waiting": tunnels.setups.waiting},
            "capacity": {
                "binding": capacity.binding,
                "text": capacity.text,
                "limits": {limit: share.tunnels for limit, share in capacity.shares.items()},
            },
            "drain_ms": round(door.drain_s * 1000),
            "shutdown_grace_ms": round(door.grace_s * 1000),
        }

    def _metrics_url(self) -> str | None:
        """Where this host finds /metrics; None where there is none, or it cannot be told."""
        host, port = self._door.monitor.address or next(iter(self._door.addresses), ("", 0))
        if self._settings.metrics == "off" or not port:
            return None
        return f"http://{shown((_REACHED_AT.get(host, host), port))}/metrics"
