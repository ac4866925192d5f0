"""What the DHCP server says: a pure function from a request's bytes to the reply, without memory.

There is one guest on the segment and one lease, so nothing has to be remembered: firmware, boot loader and
operating system in a row, each with a MAC address of its own, get the same address (RFC 2131 section 4.3).
"""

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final

from aero_l2.services.dhcp import codec
from aero_l2.services.dhcp.codec import DhcpError, DhcpMessage

GATEWAY: Final = IPv4Address("10.0.2.2")
GUEST: Final = IPv4Address("10.0.2.15")
NETMASK: Final = IPv4Address("255.255.255.0")
BROADCAST: Final = IPv4Address("255.255.255.255")
CLIENT_PORT: Final = 68
LEASE_SECONDS: Final = 86_400
MTU: Final = 1500

_ETHERNET: Final = 1
_MAC_BYTES: Final = 6
_UNSPECIFIED: Final = IPv4Address(0)

# RFC 2132: what every answer but a NAK says about the network, and, where there is a lease, about its life.
_NETWORK: Final = {
    codec.SUBNET_MASK: NETMASK.packed,
    codec.ROUTER: GATEWAY.packed,
    codec.DNS_SERVERS: GATEWAY.packed,
    codec.INTERFACE_MTU: struct.pack("!H", MTU),
}
_LEASE: Final = {
    codec.LEASE_TIME: struct.pack("!I", LEASE_SECONDS),
    codec.RENEWAL_TIME: struct.pack("!I", LEASE_SECONDS // 2),
    codec.REBINDING_TIME: struct.pack("!I", LEASE_SECONDS * 7 // 8),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """A datagram to send from port 67: at least 300 bytes, never over 548 (what every client can take)."""

    payload: bytes
    destination: IPv4Address
    port: int


def answer(request: bytes) -> Reply | None:
    """Answer one datagram from the guest; None where the server stays silent. Never raises.

    Silent for: what is not DHCP, what is not Ethernet, replies, BOOTP, DECLINE, RELEASE, and requests
    addressed to another server (RFC 2131 section 4.3.2).
    """
    try:
        message = codec.decode(request)
        if message.op != codec.BOOTREQUEST or (message.htype, message.hlen) != (_ETHERNET, _MAC_BYTES):
            return None
        if len(message.options.get(codec.CLIENT_ID, b"")) > 255:
            return None
        return _judge(message)
    except DhcpError:
        return None


def _judge(message: DhcpMessage) -> Reply | None:
    server = message.address(codec.SERVER_ID)
    if server not in (None, GATEWAY):
        return None
    match message.kind:
        case codec.DISCOVER:
            return _broadcast(_lease(message, codec.OFFER, ciaddr=_UNSPECIFIED))
        case codec.REQUEST:
            return _request(message)
        case codec.INFORM:
            return _inform(message)
        case _:
            return None


def _request(message: DhcpMessage) -> Reply:
    """Selecting, rebooting, renewing and rebinding differ in where the wanted address stands."""
    wanted = (message.address(codec.REQUESTED_ADDRESS), message.ciaddr)
    if any(address not in (None, _UNSPECIFIED, GUEST) for address in wanted):
        return _nak(message)
    return _to_client(_lease(message, codec.ACK, ciaddr=message.ciaddr))


def _inform(message: DhcpMessage) -> Reply | None:
    """The client has an address and wants the rest: no lease in the answer (RFC 2131 section 4.3.5)."""
    if message.ciaddr not in (_UNSPECIFIED, GUEST):
        return None
    reply = _reply(message, codec.ACK, _NETWORK)
    return _to_client(replace(reply, ciaddr=message.ciaddr, siaddr=GATEWAY))


def _nak(message: DhcpMessage) -> Reply:
    text = f"this network has one address, {GUEST}".encode()
    return _broadcast(_reply(message, codec.NAK, {codec.MESSAGE: text}))


def _lease(message: DhcpMessage, kind: int, *, ciaddr: IPv4Address) -> DhcpMessage:
    reply = _reply(message, kind, _NETWORK | _LEASE)
    return replace(reply, ciaddr=ciaddr, yiaddr=GUEST, siaddr=GATEWAY)


def _reply(message: DhcpMessage, kind: int, options: dict[int, bytes]) -> DhcpMessage:
    """The skeleton: what is echoed (RFC 2131 table 3; the client identifier by RFC 6842), kind and server."""
    answered = {codec.MESSAGE_TYPE: bytes([kind]), codec.SERVER_ID: GATEWAY.packed, **options}
    if codec.CLIENT_ID in message.options:
        answered[codec.CLIENT_ID] = message.options[codec.CLIENT_ID]
    return DhcpMessage(
        op=codec.BOOTREPLY,
        xid=message.xid,
        chaddr=message.chaddr,
        options=answered,
        flags=message.flags,
        giaddr=message.giaddr,
    )


def _to_client(reply: DhcpMessage) -> Reply:
    """Unicast only to a client that says it has the address: any other cannot answer ARP for it yet."""
    if reply.ciaddr == GUEST:
        return Reply(codec.encode(reply), GUEST, CLIENT_PORT)
    return _broadcast(reply)


def _broadcast(reply: DhcpMessage) -> Reply:
    return Reply(codec.encode(reply), BROADCAST, CLIENT_PORT)
