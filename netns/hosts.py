"""What netd needs to know of the host: its IPv4 addresses, kept current, and whether it lets users ping."""

import errno
import socket
from ipaddress import IPv4Address

from netns import link

_RTMGRP_IPV4_IFADDR = 0x10


class HostMonitor:
    """Addresses of the namespace it is made in; its ``fileno`` is readable when they may have changed."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _RTMGRP_IPV4_IFADDR))
        self.addresses: frozenset[IPv4Address] = link.host_addresses()

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def changed(self) -> bool:
        """Look again; whether ``addresses`` are others than before. A burst or an overrun is one change."""
        self._drain()
        before, self.addresses = self.addresses, link.host_addresses()
        return self.addresses != before

    def _drain(self) -> None:
        while True:
            try:
                self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # some were lost, which is why everything is read anew
                    raise


def ping_permitted() -> bool:
    """Whether the NAT process may open ping sockets: sysctl net.ipv4.ping_group_range, icmp(7)."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP):
            return True
    except OSError:
        return False
