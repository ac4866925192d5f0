"""What the server owns of one tunnel's namespace."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from netns import messages


@dataclass(slots=True)
class SegmentHandles:
    """File descriptors of one tunnel's namespace, owned, close-on-exec; all but ``netns`` non-blocking.

    ``tap``: one read or write is one Ethernet frame. ``exit_pipe``: closing it ends the NAT process.
    ``process``: its pidfd, readable once it ended. ``stderr``: what it says. ``dhcp``: UDP 0.0.0.0:67 on
    the LAN, broadcast allowed. ``dns_udp``, ``dns_tcp`` (listening): port 53 of the gateway. ``flows``:
    events of its connection tracking (`netns.conntrack`).
    ``redirected_udp``, ``redirected_tcp``: the same for DNS that the guest sent elsewhere, -1 where
    that is not redirected. ``denials``: headers of refused packets (`netns.denials`), -1 where nobody asked
    for them.
    """

    id: int
    netns: int
    tap: int
    exit_pipe: int
    process: int
    stderr: int
    dhcp: int
    dns_udp: int
    dns_tcp: int
    flows: int
    nat_ready: asyncio.Future[None]
    """Done once the NAT process has opened its TAP; packets for it are lost before, in the kernel."""
    nat_sick: asyncio.Future[str]
    """Done with what is wrong where netd gives the NAT process up, just before it ends."""
    relieved: Callable[[int, str], None] = field(default=lambda connections, reason: None, init=False)
    """Told how many TCP connections of the NAT process netd has reset, and why."""
    took: tuple[int, ...] = ()
    """Microseconds of each of `netns.stopwatch.STEPS`."""
    redirected_udp: int = -1
    redirected_tcp: int = -1
    denials: int = -1

    def close(self) -> None:
        """Close what is open; idempotent. The namespace and its NAT process go with the last descriptor."""
        for name in messages.handle_names(redirects_dns=True, audits=True):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)
