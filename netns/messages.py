"""Messages between server and netd: one JSON object per SOCK_SEQPACKET message, descriptors by SCM_RIGHTS.

Server to netd:

    create   id, spec             make a tunnel's namespace; answered by made or failed
    adopt    id  [netns, process] take over a namespace that an earlier netd made, and its NAT process's
                                  pidfd; not answered
    release  id                   forget it; not answered
    counters id, request          answered by counted
    flows    id, request [, wanted]  answered by listed; wanted: flows by their ends (`netns.details`)
    open     id, request, openings ([address, seconds], …)  answered by opened

netd to server:

    made     id, took  [HANDLES]  descriptors in the order of `HANDLES`, `REDIRECT_HANDLES`,
                                  `AUDIT_HANDLES`, the last two where there are such; microseconds of
                                  each of `stopwatch.STEPS`
    ready    id                   its NAT process has opened the TAP; after made
    failed   id, reason           everything is undone
    sick     id, reason           its NAT process is given up and about to be killed; after made
    relieved id, connections, reason  so many of its TCP connections were reset
    counted  id, request, counters (name → packets, or null where it is not known)
    listed   id, request  [file]  the active flows (`netns.conntrack.pack`), or what `netns.details.read`
                                  returns of those wanted; no file where they are not known
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

from netns import details, fields
from netns.errors import MessageError, TruncatedMessage
from netns.files import close_all
from netns.spec import SegmentSpec

MAX_MESSAGE = 65_536
MAX_DESCRIPTORS = 16
HANDLES = ("netns", "tap", "exit_pipe", "process", "stderr", "dhcp", "dns_udp", "dns_tcp", "flows")
REDIRECT_HANDLES = ("redirected_udp", "redirected_tcp")
AUDIT_HANDLES = ("denials",)
MAX_OPENINGS = fields.MAX_OPENINGS
_MAX_REASON = 500


def handle_names(*, redirects_dns: bool, audits: bool) -> tuple[str, ...]:
    """What `Made` carries for a tunnel of that kind, in this order."""
    return HANDLES + (REDIRECT_HANDLES if redirects_dns else ()) + (AUDIT_HANDLES if audits else ())


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
    """wanted: these with all there is to know of them, or all flows where none is named; None: which are
    active."""

    id: int
    request: int
    wanted: tuple[details.Ends, ...] | None = None


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
            body: dict[str, Any] = {"op": "create", "id": id, "spec": spec.to_message()}
        case Adopt(id):
            body = {"op": "adopt", "id": id}
        case Release(id):
            body = {"op": "release", "id": id}
        case ReadCounters(id, request):
            body = {"op": "counters", "id": id, "request": request}
        case ListFlows(id, request, wanted):
            body = {"op": "flows", "id": id, "request": request}
            body |= {} if wanted is None else {"wanted": details.to_message(wanted)}
        case OpenAddresses(id, request, openings):
            listed = [[str(address), seconds] for address, seconds in openings]
            body = {"op": "open", "id": id, "request": request, "openings": listed}
        case Made(id, took):
            body = {"op": "made", "id": id, "took": took}
        case NatReady(id):
            body = {"op": "ready", "id": id}
        case Failed(id, reason):
            body = {"op": "failed", "id": id, "reason": reason[:_MAX_REASON]}
        case NatSick(id, reason):
            body = {"op": "sick", "id": id, "reason": reason[:_MAX_REASON]}
        case Relieved(id, connections, reason):
            body = {"op": "relieved", "id": id, "connections": connections, "reason": reason[:_MAX_REASON]}
        case Counted(id, request, counters):
            body = {"op": "counted", "id": id, "request": request, "counters": counters}
        case Listed(id, request):
            body = {"op": "listed", "id": id, "request": request}
        case Opened(id, request, done):
            body = {"op": "opened", "id": id, "request": request, "done": done}
        case HostAddresses(addresses):
            body = {"op": "host", "addresses": [str(address) for address in sorted(addresses)]}
    encoded = json.dumps(body, separators=(",", ":")).encode()
    if len(encoded) > MAX_MESSAGE:
        raise MessageError(f"message of {len(encoded)} bytes is over {MAX_MESSAGE}")
    return encoded


def decode_request(data: bytes) -> Request:
    """What the server asks of netd. Raises MessageError, nothing else, whatever the bytes."""
    match fields.read(data):
        case {"op": "create", "id": id, "spec": dict(spec), **rest} if not rest:
            return Create(fields.identifier(id), SegmentSpec.from_message(spec))
        case {"op": "adopt", "id": id, **rest} if not rest:
            return Adopt(fields.identifier(id))
        case {"op": "release", "id": id, **rest} if not rest:
            return Release(fields.identifier(id))
        case {"op": "counters", "id": id, "request": request, **rest} if not rest:
            return ReadCounters(fields.identifier(id), fields.identifier(request))
        case {"op": "flows", "id": id, "request": request, **rest} if not rest:
            return ListFlows(fields.identifier(id), fields.identifier(request))
        case {"op": "flows", "id": id, "request": request, "wanted": wanted, **rest} if not rest:
            return ListFlows(fields.identifier(id), fields.identifier(request), details.from_message(wanted))
        case {"op": "open", "id": id, "request": request, "openings": list(openings), **rest} if not rest:
            return OpenAddresses(fields.identifier(id), fields.identifier(request), fields.openings(openings))
    raise MessageError("unknown request")


def decode_answer(data: bytes) -> Answer:
    """What netd tells the server. Raises MessageError, nothing else, whatever the bytes."""
    match fields.read(data):
        case {"op": "made", "id": id, "took": list(took), **rest} if not rest:
            return Made(fields.identifier(id), fields.durations(took))
        case {"op": "ready", "id": id, **rest} if not rest:
            return NatReady(fields.identifier(id))
        case {"op": "failed", "id": id, "reason": str(reason), **rest} if not rest:
            return Failed(fields.identifier(id), reason[:_MAX_REASON])
        case {"op": "sick", "id": id, "reason": str(reason), **rest} if not rest:
            return NatSick(fields.identifier(id), reason[:_MAX_REASON])
        case {"op": "relieved", "id": id, "connections": number, "reason": str(reason), **rest} if not rest:
            return Relieved(fields.identifier(id), fields.identifier(number), reason[:_MAX_REASON])
        case {"op": "counted", "id": id, "request": request, "counters": counters, **rest} if not rest:
            return Counted(fields.identifier(id), fields.identifier(request), fields.counters(counters))
        case {"op": "listed", "id": id, "request": request, **rest} if not rest:
            return Listed(fields.identifier(id), fields.identifier(request))
        case {"op": "opened", "id": id, "request": request, "done": bool(done), **rest} if not rest:
            return Opened(fields.identifier(id), fields.identifier(request), done)
        case {"op": "host", "addresses": list(addresses), **rest} if not rest:
            return HostAddresses(fields.addresses(addresses))
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
