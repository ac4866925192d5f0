"""Packets that a tunnel's interfaces have lost for a full queue, by rtnetlink(7).

A TAP keeps what its reader has not taken yet, in a ring as long as its transmit queue; what does not fit
counts as dropped in the interface's statistics. Where the kernel holds the sender back instead, the queue
before the ring fills and counts.
"""

import errno
import socket
import struct
from typing import Final

from netns import netlink, shaping

COUNTERS: Final = {"tap0": "full_queue_tx", "tap1": "full_queue_rx"}
"""Names of the numbers, beside nft's named counters, by interface: towards the guest, and from it."""

_GET_LINK, _GET_QDISC = 18, 38
_REQUEST, _DUMP = 0x1, 0x300
_ROOT: Final = 0xFFFFFFFF
_IFLA_IFNAME, _IFLA_STATS64 = 3, 23
_TX_DROPPED = 7  # place in struct rtnl_link_stats64, linux/if_link.h


def open_route() -> socket.socket:
    """An rtnetlink socket of the calling thread's namespace. Raises OSError."""
    route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    route.settimeout(2.0)
    route.bind((0, 0))
    return route


def read_lost(route: socket.socket, early: int | None) -> dict[str, int]:
    """Packets lost since the start, by `COUNTERS` and `shaping.COUNTERS`.

    Of tap1 those since the tunnel is ready: ``early`` is `Segment.early_losses`. Raises OSError.
    """
    lost = dict.fromkeys((*COUNTERS.values(), *shaping.COUNTERS.values()), 0)
    names: dict[int, str] = {}
    for payload in _dump(route, _GET_LINK, bytes(16)):
        attributes = dict(netlink.attributes(payload[16:]))
        dropped = _tx_dropped(attributes)
        name = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode()
        if name in COUNTERS:
            names[struct.unpack_from("=i", payload, 4)[0]] = name  # ifi_index
            not_the_guests = (dropped if early is None else early) if name == "tap1" else 0
            lost[COUNTERS[name]] += dropped - not_the_guests
    for payload in _dump(route, _GET_QDISC, bytes(20)):
        index, parent = struct.unpack_from("=i4xI", payload, 4)  # tcm_ifindex, tcm_parent
        if parent == _ROOT and index in names:  # those behind it count in it
            kind, dropped = _queueing_discipline(dict(netlink.attributes(payload[20:])))
            lost[(shaping.COUNTERS if kind == shaping.KIND else COUNTERS)[names[index]]] += dropped
    return lost


def _dump(route: socket.socket, kind: int, header: bytes) -> list[bytes]:
    route.send(struct.pack("=IHHII", 16 + len(header), kind, _REQUEST | _DUMP, 1, 0) + header)
    return list(netlink.dumped(route))


def _tx_dropped(attributes: dict[int, bytes]) -> int:
    """Raises OSError for what is no answer about an interface."""
    if len(attributes.get(_IFLA_STATS64, b"")) <= 8 * _TX_DROPPED + 7:
        raise OSError(errno.EBADMSG, "no statistics of an interface")
    return int(struct.unpack_from("=Q", attributes[_IFLA_STATS64], 8 * _TX_DROPPED)[0])


def _queueing_discipline(attributes: dict[int, bytes]) -> tuple[str, int]:
    """TCA_KIND, and of TCA_STATS2 { TCA_STATS_QUEUE { qlen, backlog, drops, … } } the drops.

    Raises OSError for what is no answer about one.
    """
    queue = dict(netlink.attributes(attributes.get(7, b""))).get(3, b"")
    if 1 not in attributes or len(queue) < 12:
        raise OSError(errno.EBADMSG, "no statistics of a queueing discipline")
    return attributes[1].rstrip(b"\0").decode(), int(struct.unpack_from("=III", queue)[2])
