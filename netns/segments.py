"""A tunnel's namespace as netd keeps it once the server has its side."""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network

from netns import nftables
from netns.namespace import Interior


@dataclass(slots=True)
class Segment:
    """One tunnel's namespace as netd keeps it; everything else belongs to the server."""

    interior: Interior
    hosts: frozenset[IPv4Network] = frozenset()
    adopting: bool = False
    """A thread is inside the namespace; it closes the interior itself if the tunnel is released meanwhile."""

    def sync_hosts(self, hosts: frozenset[IPv4Network]) -> None:
        """Bring the firewall's set of host addresses up to date. Raises OSError."""
        if hosts == self.hosts:
            return
        with self._netlink() as netlink:
            nftables.replace_host_set(netlink, hosts)
        self.hosts = hosts

    def counters(self) -> dict[str, int]:
        """Packets by named counter. Raises OSError."""
        with self._netlink() as netlink:
            return nftables.read_counters(netlink)

    def adopt(self, hosts: frozenset[IPv4Network]) -> None:
        """On a thread inside the namespace: open what an earlier netd had, with today's ``hosts``."""
        self.interior.netlink = nftables.open_netlink().detach()
        with self._netlink() as netlink:
            nftables.replace_host_set(netlink, hosts)
        self.hosts = hosts

    def handed_over(self) -> None:
        """Close what only the server needs from now on."""
        for name in ("tap", "dhcp", "dns_udp", "dns_tcp"):
            os.close(getattr(self.interior, name))
            setattr(self.interior, name, -1)

    @contextlib.contextmanager
    def _netlink(self) -> Iterator[socket.socket]:
        with socket.socket(fileno=os.dup(self.interior.netlink)) as netlink:
            netlink.settimeout(2.0)
            yield netlink
