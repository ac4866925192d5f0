"""A tunnel's WebSocket from the 101 on: its link, and whoever asks whether the client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aero_l2.session.keepalive import Keepalive
from aero_l2.session.link import Link, LinkOwner
from aero_l2.session.options import TunnelOptions
from aero_l2.wire.framing import Framing
from aero_l2.wire.receive import Receiver


def attach(
    transport: asyncio.Transport,
    owner: LinkOwner,
    framing: Framing,
    options: TunnelOptions,
    silent: Callable[[], None],
) -> tuple[Link, Keepalive]:
    """Hand a connection to a new link. silent: called when nothing comes back for pings, where it pings."""
    receiver = Receiver(framing.max_message, library_only=options.library_only)
    link = Link(receiver, owner, stall_timeout_s=options.stall_timeout_s)
    keepalive = Keepalive(link, options.ws_ping_interval_s, silent)
    transport.set_protocol(link)
    link.connection_made(transport)
    if framing.pinged:
        keepalive.start()
    return link, keepalive
