"""A tunnel's WebSocket from the 101 on: its link, and whoever asks whether the client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aero_l2.session.closing import Closing
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


def say_goodbye(link: Link, framing: Framing, closing: Closing, text: str) -> None:
    """ERROR, where the framing has any, and close frame, as the table says, with this text."""
    if closing.error_code is not None and (error := framing.error(closing.error_code, text)):
        link.write(error)
    if closing.close_code is not None:
        link.send_close(closing.close_code, text)
