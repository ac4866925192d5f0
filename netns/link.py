"""Addresses, routes and forwarding of a tunnel's namespace, by rtnetlink (pyroute2); rtnetlink(7).

Nothing is written under /proc/sys: that is read-only in unprivileged containers.
"""

import socket
import struct
from functools import lru_cache
from ipaddress import IPv4Network
from typing import Any

from pyroute2.iproute.linux import IPBatch, IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from netns import netlink
from netns.errors import SegmentError
from netns.spec import (
    GATEWAY,
    GATEWAY_MAC,
    LAN,
    NAT_CLIENT,
    NAT_CLIENT_MAC,
    NAT_HOST,
    NAT_HOST_MAC,
    NAT_NETWORK,
)

LAN_MTU = 1500
NAT_MTU = 65520
"""slirp4netns reads packets of any size; what it sends is bounded by its own MTU of 1500."""
NAT_QUEUE = 100

# linux/ip.h, IPV4_DEVCONF_*. A new namespace inherits these from the host, whatever they are there.
_IPV4_CONF = {
    1: 1,  # forwarding
    3: 0,  # proxy_arp
    4: 0,  # accept_redirects
    6: 0,  # send_redirects
    9: 0,  # accept_source_route
    11: 0,  # log_martians: a guest must not write the host's log
    18: 2,  # arp_announce: ask for the guest in the name of the gateway, the one address it may answer
    21: 0,  # arp_accept
    22: 1,  # arp_notify: see `announce_nat_client`
    26: 0,  # route_localnet
}


def _af_spec() -> bytes:
    """The content of IFLA_AF_SPEC, linux/if_link.h, as raw bytes (which the message family AF_UNIX selects).

    AF_INET { IFLA_INET_CONF { … } }, AF_INET6 { IFLA_INET6_ADDR_GEN_MODE: none }. pyroute2's own encoding of
    these nested attributes is accepted and does nothing.
    """
    conf = b"".join(netlink.attribute(key, struct.pack("=I", value)) for key, value in _IPV4_CONF.items())
    ipv4 = netlink.attribute(socket.AF_INET, netlink.attribute(1, conf))
    return ipv4 + netlink.attribute(socket.AF_INET6, netlink.attribute(8, b"\x01"))


RTN_LOCAL = 2
_TABLE_LOCAL = 255
_SET_NEIGHBOUR_TABLE = 67
_NEIGHBOUR_TABLE, _NEIGHBOUR_PARAMETERS = 1, 6  # NDTA_NAME, NDTA_PARMS
_NEIGHBOUR_INTERFACE, _NEIGHBOUR_QUEUE_BYTES = 1, 16  # NDTPA_IFINDEX, NDTPA_QUEUE_LENBYTES
_ACKNOWLEDGED = 0x5  # NLM_F_REQUEST | NLM_F_ACK
_ERROR = 0x2  # NLMSG_ERROR, which also acknowledges


def configure_links() -> None:
    """Set up tap0 and tap1 of the calling thread's namespace, in one exchange. Raises SegmentError."""
    try:
        _exchange(_requests(socket.if_nametoindex("tap0"), socket.if_nametoindex("tap1")))
    except (NetlinkError, OSError) as error:
        raise SegmentError(f"cannot set up the tunnel's interfaces: {error}") from error


def announce_nat_client() -> None:
    """Have the kernel send a gratuitous ARP on tap1 of the calling thread's namespace. Raises SegmentError.

    libslirp takes the time after each turn of its loop: a UDP flow that begins with the first one is outdated
    and forgotten at once. This packet, which needs no answer, saves the guest's first datagram, once it was
    read (`netns.announcing`): one that waits behind it can belong to the same turn. The kernel sends it where
    an interface's address is set, and forgets the interface's neighbours then.
    """
    try:
        _exchange(_announcement(socket.if_nametoindex("tap1")))
    except (NetlinkError, OSError) as error:
        raise SegmentError(f"cannot announce the tunnel to its NAT: {error}") from error


def _exchange(requests: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        route.settimeout(5.0)
        route.bind((0, 0))
        route.send(requests)
        _expect_acknowledgements(route, len(list(netlink.split(requests))))


@lru_cache(maxsize=8)
def _requests(lan: int, nat: int) -> bytes:
    """Every request of a set-up, encoded once for the interface indices ``lan`` and ``nat``."""
    with IPBatch() as route:
        _set_up(route, lan, mtu=LAN_MTU, address=GATEWAY_MAC)
        _set_up(route, nat, mtu=NAT_MTU, txqlen=NAT_QUEUE, address=NAT_CLIENT_MAC)
        route.addr("add", index=lan, address=str(GATEWAY), prefixlen=LAN.prefixlen)
        route.addr("add", index=nat, address=str(NAT_CLIENT), prefixlen=NAT_NETWORK.prefixlen)
        # Permanent, so that the NAT never takes a place in the neighbour table all namespaces share.
        route.neigh("add", dst=str(NAT_HOST), lladdr=NAT_HOST_MAC, ifindex=nat, state="permanent")
        route.route("add", dst="0.0.0.0/0", gateway=str(NAT_HOST), oif=nat)
        return bytes(route.batch) + _short_neighbour_queue(lan)


def _short_neighbour_queue(index: int) -> bytes:
    """Have one packet at most wait for an ARP answer on an interface (RTM_SETNEIGHTBL, linux/neighbour.h).

    What waits is charged to the socket that made it, and the ICMP messages and RSTs of all namespaces, the
    host's too, come from one socket each of a processor: the buffer that a hundred packets for a guest that
    answers no ARP take up would be everybody's.
    """
    parameters = (
        netlink.attribute(_NEIGHBOUR_INTERFACE, struct.pack("=I", index)),
        netlink.attribute(_NEIGHBOUR_QUEUE_BYTES, struct.pack("=I", 0)),  # one packet is always taken
    )
    table = struct.pack("=BBH", socket.AF_INET, 0, 0) + netlink.string(_NEIGHBOUR_TABLE, "arp_cache")
    payload = table + netlink.nest(_NEIGHBOUR_PARAMETERS, parameters)
    return struct.pack("=IHHII", 16 + len(payload), _SET_NEIGHBOUR_TABLE, _ACKNOWLEDGED, 0, 0) + payload


@lru_cache(maxsize=8)
def _announcement(nat: int) -> bytes:
    with IPBatch() as route:
        route.link("set", index=nat, address=NAT_CLIENT_MAC)
        route.neigh("replace", dst=str(NAT_HOST), lladdr=NAT_HOST_MAC, ifindex=nat, state="permanent")
        return bytes(route.batch)


def _expect_acknowledgements(route: socket.socket, count: int) -> None:
    """Read one answer per request. Raises OSError for the first that was refused."""
    while count:
        for kind, payload in netlink.split(route.recv(65536)):
            if kind == _ERROR:
                netlink.raise_error(payload)
                count -= 1


def host_networks() -> frozenset[IPv4Network]:
    """What is local to the calling thread's namespace: its addresses, and prefixes routed to itself (AnyIP).

    From the kernel's table ``local``; loopback aside. Raises OSError.
    """
    with IPRoute(strict_check=True) as route:
        local = route.get_routes(family=socket.AF_INET, table=_TABLE_LOCAL)
        found = (
            IPv4Network((message.get("RTA_DST") or "0.0.0.0", message["dst_len"]))
            for message in local
            if message["type"] == RTN_LOCAL
        )
        return frozenset(network for network in found if not network.is_loopback)


def _set_up(route: Any, index: int, **settings: object) -> None:
    """Forwarding on, no IPv6 address by itself, then up: coming up is when that address would be made."""
    route.link("set", index=index, family=socket.AF_UNIX, IFLA_AF_SPEC=_af_spec(), **settings)
    route.link("set", index=index, state="up")
