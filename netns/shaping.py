"""A tunnel's limit of bytes a second: a token bucket filter on each of its interfaces; tc-tbf(8).

What exceeds the rate waits in a short queue, so TCP adapts instead of losing whole windows: the NAT process
speaks TCP without SACK, which a limit that only drops stalls. On tap0 it counts what goes to the guest, on
tap1 what leaves for the NAT process: whole frames, 14 bytes of Ethernet header included. Behind the bucket
stands a queue of three bands (tc-pfifo_fast(8)); the gateway's own packets and those of flows of small
packets go first, so that a download holds up neither DNS nor keystrokes.
"""

import errno
import os
import socket
import struct
from typing import Final

from netns import netlink
from netns.errors import SegmentError

COUNTERS: Final = {"tap0": "limit_bytes_tx", "tap1": "limit_bytes_rx"}
"""Names of the numbers of packets that found the queue full, beside nft's named counters, by interface."""
PINGS_COUNTER: Final = "limit_pings"
PINGS_PER_SECOND: Final = 10
"""Answers to pings of the gateway, where there is a queue that they wait in: that charges them to the one
socket a processor has for the ICMP messages of all namespaces, the host's too. A ping a second is usual."""
QUEUE_PACKETS: Final = 200
"""Each band's length: what four connections of libslirp's 64 KiB windows have under way."""
SMALL_PACKETS: Final = 256
"""A flow goes first while its packets are shorter than so many bytes on average, both ways."""
_FIRST_BAND: Final = "0:6"  # TC_PRIO_INTERACTIVE, linux/pkt_sched.h

KIND: Final = "tbf"
_NEW_LINK, _NEW_QDISC = 16, 36
_REQUEST, _ACK, _CREATE, _EXCL = 0x1, 0x4, 0x400, 0x200
_ERROR = 0x2
_ROOT: Final = 0xFFFFFFFF
_HANDLE: Final = 1 << 16
_ETHERNET: Final = 1  # TC_LINKLAYER_ETHERNET


def render(bytes_per_second: int, burst: int) -> str:
    """The nft text of the chains that choose a packet's band; nothing without a limit.

    The limit itself is no rule of nft's; a comment tells whoever reads the rules of it.
    """
    if not bytes_per_second:
        return ""
    pings = f"icmp type echo-reply limit rate over {PINGS_PER_SECOND}/second burst 5 packets"
    small = " ".join(f"ct {way} avgpkt < {SMALL_PACKETS}" for way in ("original", "reply"))
    return f"""\
  # tbf on tap0 and on tap1: {bytes_per_second} bytes/second, burst {burst} bytes
  chain bands {{
    type filter hook forward priority 10; policy accept;
    {small} meta priority set {_FIRST_BAND}
  }}
  chain own_band {{
    type filter hook output priority filter; policy accept;
    {pings} counter name {PINGS_COUNTER} drop
    meta priority set {_FIRST_BAND}
  }}
"""


def requests(index: int, bytes_per_second: int, burst: int) -> list[bytes]:
    """The rtnetlink messages that limit what leaves by the interface ``index``, which is up."""
    rate = struct.pack("=BBHhHI", 0, _ETHERNET, 0, 0, 0, min(bytes_per_second, 0xFFFFFFFF))
    # struct tc_tbf_qopt: rate, peak rate, limit (of a queue that is replaced at once), buffer, mtu
    parms = rate + bytes(12) + struct.pack("=III", burst, 0, 0)
    options = netlink.nest(
        2,  # TCA_OPTIONS { TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST }
        [
            netlink.attribute(1, parms),
            netlink.attribute(4, struct.pack("=Q", bytes_per_second)),
            netlink.attribute(6, struct.pack("=I", burst)),
        ],
    )
    return [
        _queue_length(index),
        _message(index, _HANDLE, _ROOT, netlink.string(1, KIND) + options),
        _message(index, 0, _HANDLE | 1, netlink.string(1, "pfifo_fast")),
    ]


def limit(route: socket.socket, indices: tuple[int, ...], bytes_per_second: int, burst: int) -> None:
    """Set the limit on each interface by ``route``, an rtnetlink socket of the namespace.

    Raises SegmentError with the setting's name.
    """
    batch = [message for index in indices for message in requests(index, bytes_per_second, burst)]
    try:
        route.send(b"".join(batch))
        answers = 0
        while answers < len(batch):
            for kind, payload in netlink.split(route.recv(65536)):
                if kind == _ERROR:
                    answers += 1
                    netlink.raise_error(payload)
    except OSError as error:
        raise SegmentError(_explain(error)) from error


def _message(index: int, handle: int, parent: int, attributes: bytes) -> bytes:
    """RTM_NEWQDISC with a struct tcmsg."""
    body = struct.pack("=BxxxiIII", socket.AF_UNSPEC, index, handle, parent, 0) + attributes
    flags = _REQUEST | _ACK | _CREATE | _EXCL
    return struct.pack("=IHHII", 16 + len(body), _NEW_QDISC, flags, 1, 0) + body


def _queue_length(index: int) -> bytes:
    """RTM_NEWLINK with a struct ifinfomsg and IFLA_TXQLEN, which a queue takes when it is made."""
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0)
    body += netlink.attribute(13, struct.pack("=I", QUEUE_PACKETS))
    return struct.pack("=IHHII", 16 + len(body), _NEW_LINK, _REQUEST | _ACK, 1, 0) + body


def _explain(error: OSError) -> str:
    doing = "AERO_L2_MAX_BYTES_PER_SECOND cannot be enforced"
    if error.errno == errno.ENOENT:
        return (
            f"{doing}: the kernel has no such queue (tbf); run modprobe sch_tbf on the host, or set it to 0"
        )
    return f"{doing}: {os.strerror(error.errno) if error.errno else error}"
