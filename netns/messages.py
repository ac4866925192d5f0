"""Messages between server and netd: one JSON object per SOCK_SEQPACKET message, descriptors by SCM_RIGHTS.

Server to netd:

    create   id, spec             make a tunnel's namespace; answered by made or failed
    adopt    id  [netns, process] take over a namespace that an earlier netd made, and its NAT process's
                                  pidfd; not answered
    release  id                   forget it; not answered
    counters id, request          answered by counted
    flows    id, request          answered by listed
    open     id, request, openings ([address, seconds], …)  answered by opened

netd to server:

    made     id, took  [HANDLES]  descriptors in the order of `HANDLES`, or `REDIRECT_HANDLES` behind;
                                  microseconds of each of `stopwatch.STEPS`
    ready    id                   its NAT process has opened the TAP; after made
    failed   id, reason           everything is undone
    sick     id, reason           its NAT process is given up and about to be killed; after made
    relieved id, connections, reason  so many of its TCP connections were reset
    counted  id, request, counters (name → packets, or null where it is not known)
    listed   id, request  [file]  the active flows (`netns.conntrack.pack`); no file where they are not known
    opened   id, request, done    the addresses are within reach for so long, or nothing has changed
    host     addresses            the host's IPv4 addresses, at start and at each change

Both sides check every field. Ids are chosen by the server, 1..2**53.
"""

import array
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from netns.errors import MessageError, TruncatedMessage
from netns.fields import counters_of, durations_of, fields_of, id_of
from netns.files import close_all
from netns.spec import SegmentSpec

MAX_MESSAGE = 65_536
MAX_DESCRIPTORS = 16
HANDLES = ("netns", "tap", "exit_pipe", "process", "stderr", "dhcp", "dns_udp", "dns_tcp", "flows")
REDIRECT_HANDLES = ("redirected_udp", "redirected_tcp")
MAX_OPENINGS = 256
MAX_OPEN_S = 2**32
_MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Create:
    id: int
    spec: SegmentSpec


@dataclass(frozen=True, slots=True)
class Adopt:
    id: int


@dataclass(frozen=True, slots=True)
class Release:
    id: int


@dataclass(frozen=True, slots=True)
class ReadCounters:
    id: int
    request: int


@dataclass(frozen=True, slots=True)
class ListFlows:
    id: int
    request: int


@dataclass(frozen=True, slots=True)
class OpenAddresses:
    """Have each address within reach for so many seconds from now on, instead of what was said before."""

    id: int
    request: int
    openings: tuple[tuple[IPv4Address, int], ...]


@dataclass(frozen=True, slots=True)
class Made:
    id: int
    took: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NatReady:
    id: int


@dataclass(frozen=True, slots=True)
class Failed:
    id: int
    reason: str


@dataclass(frozen=True, slots=True)
class NatSick:
    id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Relieved:
    id: int
    connections: int
    reason: str


@dataclass(frozen=True, slots=True)
class Counted:
    id: int
    request: int
    counters: dict[str, int] | None


@dataclass(frozen=True, slots=True)
class Listed:
    id: int
    request: int


@dataclass(frozen=True, slots=True)
class Opened:
    id: int
    request: int
    done: bool


@dataclass(frozen=True, slots=True)
class HostAddresses:
    addresses: frozenset[IPv4Address]


Request = Create | Adopt | Release | ReadCounters | ListFlows | OpenAddresses
Answer = Made | NatReady | Failed | NatSick | Relieved | Counted | Listed | Opened | HostAddresses


def encode(message: Request | Answer) -> bytes:
    """The message as it goes on the socket."""
    match message:
        case Create(id, spec):
            fields: dict[str, Any] = {"op": "create", "id": id, "spec": spec.to_message()}
        case Adopt(id):
            fields = {"op": "adopt", "id": id}
        case Release(id):
            fields = {"op": "release", "id": id}
        case ReadCounters(id, request):
            fields = {"op": "counters", "id": id, "request": request}
        case ListFlows(id, request):
            fields = {"op": "flows", "id": id, "request": request}
        case OpenAddresses(id, request, openings):
            listed = [[str(address), seconds] for address, seconds in openings]
            fields = {"op": "open", "id": id, "request": request, "openings": listed}
        case Made(id, took):
            fields = {"op": "made", "id": id, "took": took}
        case NatReady(id):
            fields = {"op": "ready", "id": id}
        case Failed(id, reason):
            fields = {"op": "failed", "id": id, "reason": reason[:_MAX_REASON]}
        case NatSick(id, reason):
            fields = {"op": "sick", "id": id, "reason": reason[:_MAX_REASON]}
        case Relieved(id, connections, reason):
            fields = {"op": "relieved", "id": id, "connections": connections, "reason": reason[:_MAX_REASON]}
        case Counted(id, request, counters):
            fields = {"op": "counted", "id": id, "request": request, "counters": counters}
        case Listed(id, request):
            fields = {"op": "listed", "id": id, "request": request}
        case Opened(id, request, done):
            fields = {"op": "opened", "id": id, "request": request, "done": done}
        case HostAddresses(addresses):
            fields = {"op": "host", "addresses": [str(address) for address in sorted(addresses)]}
    encoded = json.dumps(fields, separators=(",", ":")).encode()
    if len(encoded) > MAX_MESSAGE:
        raise MessageError(f"message of {len(encoded)} bytes is over {MAX_MESSAGE}")
    return encoded


def decode_request(data: bytes) -> Request:
    """What the server asks of netd. Raises MessageError, nothing else, whatever the bytes."""
    match fields_of(data):
        case {"op": "create", "id": id, "spec": dict(spec), **rest} if not rest:
            return Create(id_of(id), SegmentSpec.from_message(spec))
        case {"op": "adopt", "id": id, **rest} if not rest:
            return Adopt(id_of(id))
        case {"op": "release", "id": id, **rest} if not rest:
            return Release(id_of(id))
        case {"op": "counters", "id": id, "request": request, **rest} if not rest:
            return ReadCounters(id_of(id), id_of(request))
        case {"op": "flows", "id": id, "request": request, **rest} if not rest:
            return ListFlows(id_of(id), id_of(request))
        case {"op": "open", "id": id, "request": request, "openings": list(openings), **rest} if not rest:
            return OpenAddresses(id_of(id), id_of(request), _openings(openings))
    raise MessageError("unknown request")


def decode_answer(data: bytes) -> Answer:
    """What netd tells the server. Raises MessageError, nothing else, whatever the bytes."""
    match fields_of(data):
        case {"op": "made", "id": id, "took": list(took), **rest} if not rest:
            return Made(id_of(id), durations_of(took))
        case {"op": "ready", "id": id, **rest} if not rest:
            return NatReady(id_of(id))
        case {"op": "failed", "id": id, "reason": str(reason), **rest} if not rest:
            return Failed(id_of(id), reason[:_MAX_REASON])
        case {"op": "sick", "id": id, "reason": str(reason), **rest} if not rest:
            return NatSick(id_of(id), reason[:_MAX_REASON])
        case {"op": "relieved", "id": id, "connections": number, "reason": str(reason), **rest} if not rest:
            return Relieved(id_of(id), id_of(number), reason[:_MAX_REASON])
        case {"op": "counted", "id": id, "request": request, "counters": counters, **rest} if not rest:
            return Counted(id_of(id), id_of(request), counters_of(counters))
        case {"op": "listed", "id": id, "request": request, **rest} if not rest:
            return Listed(id_of(id), id_of(request))
        case {"op": "opened", "id": id, "request": request, "done": bool(done), **rest} if not rest:
            return Opened(id_of(id), id_of(request), done)
        case {"op": "host", "addresses": list(addresses), **rest} if not rest:
            return HostAddresses(_addresses(addresses))
    raise MessageError("unknown answer")


def send(connection: socket.socket, message: Request | Answer, descriptors: Sequence[int] = ()) -> None:
    """Send one message; the descriptors stay open here. Raises OSError, MessageError."""
    socket.send_fds(connection, [encode(message)], list(descriptors))


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One message and its descriptors, close-on-exec and owned by the caller; empty bytes at the end.

    Raises MessageError where the message or its descriptors did not fit: the descriptors that came are
    closed then. Raises OSError (BlockingIOError where nothing waits).
    """
    room = socket.CMSG_LEN(MAX_DESCRIPTORS * array.array("i").itemsize)
    data, ancillary, flags, _ = connection.recvmsg(MAX_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(descriptors)
        cut = "descriptors" if flags & socket.MSG_CTRUNC else "data"
        raise TruncatedMessage(data, f"{cut} of a message did not fit (out of file descriptors?)")
    return data, list(descriptors)


def _openings(values: list[Any]) -> tuple[tuple[IPv4Address, int], ...]:
    if not 1 <= len(values) <= MAX_OPENINGS:
        raise MessageError(f"{len(values)} addresses to open")
    openings = {}
    for value in values:
        match value:
            case [str(address), int(seconds)] if type(seconds) is int and 1 <= seconds <= MAX_OPEN_S:
                openings.update(dict.fromkeys(_addresses([address]), seconds))
            case _:
                raise MessageError("not an address and seconds")
    if len(openings) != len(values):
        raise MessageError("an address to open twice")
    return tuple(openings.items())


def _addresses(values: list[Any]) -> frozenset[IPv4Address]:
    try:
        return frozenset(IPv4Address(value) for value in values if type(value) is str)
    except ValueError as error:
        raise MessageError(f"not an address: {error}") from error
