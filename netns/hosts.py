"""What netd needs to know of the host: what is local to it, kept current."""

import errno
import socket
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from netns import link, netlink

_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV4_ROUTE = 0x10, 0x40
_NEW_ROUTE, _DELETE_ROUTE = 24, 25
_RTMSG_TYPE = 7  # offset of rtm_type in struct rtmsg, rtnetlink(7)


class HostMonitor:
    """The prefixes local to the namespace it is made in; a selector says when something may have changed.

    The kernel announces a route's end just before it takes the route out of the table, so a look at once can
    still find it. Hence more looks when the news has settled; they are also what repeats an update of a
    tunnel that failed.
    """

    SETTLED_AFTER_S: Final = (0.0, 0.1, 1.0)

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV4_ROUTE))
        self._looks: list[float] = []
        self.networks: frozenset[IPv4Network] = link.host_networks()

    @property
    def addresses(self) -> frozenset[IPv4Address]:
        """Those of the prefixes that are single addresses."""
        return frozenset(n.network_address for n in self.networks if n.prefixlen == n.max_prefixlen)

    def fileno(self) -> int:
        """For a selector; readable when `listen` has something to hear."""
        return self._socket.fileno()

    def listen(self, now: float) -> None:
        """Take what the kernel announced. A burst or an overrun is one change.

        Routes elsewhere do not count: a router's come and go all the time.
        """
        if self._drain():
            self._looks = [now + delay for delay in self.SETTLED_AFTER_S]

    def next_timeout(self, now: float) -> float | None:
        """Seconds until `look` has something to do, None if nothing is expected."""
        return max(0.0, self._looks[0] - now) if self._looks else None

    def look(self, now: float) -> bool:
        """Read the table if a look is due; whether one was, and ``networks`` may be others than before."""
        due = [moment for moment in self._looks if moment <= now]
        if not due:
            return False
        self._looks = self._looks[len(due) :]
        self.networks = link.host_networks()
        return True

    def _drain(self) -> bool:
        """Read all that waits; whether any of it is about addresses or local routes."""
        concerned = False
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return concerned
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                concerned = True  # some were lost, so everything is read anew
                continue
            concerned = concerned or any(_concerns(kind, payload) for kind, payload in netlink.split(data))


def _concerns(kind: int, payload: bytes) -> bool:
    return kind not in (_NEW_ROUTE, _DELETE_ROUTE) or payload[_RTMSG_TYPE] == link.RTN_LOCAL
