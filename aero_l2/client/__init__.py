"""A client of `aero-l2-tunnel-v1`: Ethernet frames in and out of a tunnel, from Python.

    async with connect("wss://lab.example/l2", Options(credential=Credential("…"))) as tunnel:
        await tunnel.send_frame(frame)
        for frame in await tunnel.receive_frames():
            ...

`run_reconnecting` opens the next tunnel when one is lost. docs/client.md has examples; the words are those of
the Aero emulator's own client.
"""

from aero_l2.client.address import NO_ORIGIN, Credential, Delivery, InvalidTarget, Target
from aero_l2.client.errors import (
    ClientError,
    ClosedHere,
    CredentialRefused,
    HostRefused,
    LimitReached,
    NotATunnel,
    OpenTimeout,
    OriginRefused,
    ProxyFailed,
    Refused,
    TlsFailed,
    TunnelClosed,
    TunnelLost,
    Unavailable,
    Unreachable,
)
from aero_l2.client.link import Stats
from aero_l2.client.opening import Options
from aero_l2.client.reconnect import ReconnectPolicy, State, Status, run_reconnecting
from aero_l2.client.tunnel import Tunnel, connect

__all__ = [
    "NO_ORIGIN",
    "ClientError",
    "ClosedHere",
    "Credential",
    "CredentialRefused",
    "Delivery",
    "HostRefused",
    "InvalidTarget",
    "LimitReached",
    "NotATunnel",
    "OpenTimeout",
    "Options",
    "OriginRefused",
    "ProxyFailed",
    "ReconnectPolicy",
    "Refused",
    "State",
    "Stats",
    "Status",
    "Target",
    "TlsFailed",
    "Tunnel",
    "TunnelClosed",
    "TunnelLost",
    "Unavailable",
    "Unreachable",
    "connect",
    "run_reconnecting",
]
