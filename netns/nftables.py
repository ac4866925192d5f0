"""nftables of a namespace: rules once by nft(8), then set elements and counters by plain nfnetlink.

Numbers and attributes are those of linux/netfilter/nf_tables.h and linux/netfilter/nfnetlink.h.
"""

import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from netns import netlink
from netns.errors import RulesRefused, SegmentError
from netns.hostrules import HOST_SET
from netns.names import NAMED_SET
from netns.ruleset import TABLE

NETLINK_NETFILTER = 12
_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_ELEMENT, _DELETE_ELEMENT, _GET_OBJECT = 12, 14, 19
_REQUEST, _ACK, _DUMP, _CREATE = 0x1, 0x4, 0x300, 0x400
_ERROR = 0x2
_COUNTER_OBJECT = (1).to_bytes(4)
_INTERVAL_END = (1).to_bytes(4)
_FAMILY_INET = 1
_NFT_TIMEOUT_S = 10


@contextlib.contextmanager
def applied_rules(program: str, script: str) -> Iterator[None]:
    """Apply ``script`` as one transaction in the calling thread's namespace while the block runs.

    The rules stand when the block has ended. Raises SegmentError, RulesRefused where nft would not.
    """
    try:
        nft = subprocess.Popen(
            [program, "-f", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={},
        )
    except OSError as error:
        raise SegmentError(f"cannot run {program}: {os.strerror(error.errno or 0)}") from error
    with nft:
        try:
            _write_script(nft, script)
            yield
            _, said = nft.communicate(timeout=_NFT_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise SegmentError(f"{program} -f -: no answer within {_NFT_TIMEOUT_S} s") from error
        finally:
            nft.kill()
    if nft.returncode:
        first = said.decode(errors="replace").strip().splitlines()
        raise RulesRefused(f"{program} -f -: status {nft.returncode}: {first[0][:200] if first else ''}")


def _write_script(nft: "subprocess.Popen[bytes]", script: str) -> None:
    """Hand the script over and say that it is complete; a program that died says why on stderr."""
    assert nft.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        nft.stdin.write(script.encode())
        nft.stdin.close()
    nft.stdin = None


def open_netlink() -> socket.socket:
    """A netfilter netlink socket of the calling thread's namespace. Raises OSError."""
    connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    connection.settimeout(2.0)
    connection.bind((0, 0))
    return connection


def replace_host_set(connection: socket.socket, networks: Iterable[IPv4Network]) -> None:
    """Make ``networks`` the whole content of the set of what is the host, in one batch. Raises OSError."""
    name = netlink.string(1, TABLE) + netlink.string(2, HOST_SET)
    elements = [part for network in collapse_addresses(networks) for part in _interval(network)]
    _change(
        connection,
        [
            _request(_DELETE_ELEMENT, _ACK, name),  # without elements: all of them
            *([_request(_NEW_ELEMENT, _ACK | _CREATE, name + netlink.nest(3, elements))] if elements else []),
        ],
    )


def open_addresses(connection: socket.socket, openings: Iterable[tuple[IPv4Address, int]]) -> None:
    """Keep each address in the set of named ones for so many seconds from now on, whatever it was before.

    Only newer kernels take a new timeout for an element that is there, so it is deleted and added anew; and
    added ahead of that, since deleting what is not there fails. A packet sees the set before all of
    that or after it. Raises OSError (ENFILE where the set is full), with nothing changed.
    """
    name = netlink.string(1, TABLE) + netlink.string(2, NAMED_SET)
    keys, timed = [], []
    for address, seconds in openings:
        keys.append(_element(int(address)))
        timed.append(_element(int(address), netlink.attribute(4, (seconds * 1000).to_bytes(8))))
    add = _request(_NEW_ELEMENT, _ACK | _CREATE, name + netlink.nest(3, timed))
    changes = [add, _request(_DELETE_ELEMENT, _ACK, name + netlink.nest(3, keys)), add]
    for last in (False, False, True):
        try:
            _change(connection, changes)
            return
        except FileNotFoundError:  # it ran out between adding and deleting it, which older kernels notice
            if last:
                raise


def _change(connection: socket.socket, requests: Sequence[bytes]) -> None:
    """Carry out all of the requests, each with _ACK, or none of them. Raises OSError.

    The kernel has answered every one of them when it has taken the batch, so what waits is all of it: nothing
    is left for who asks next.
    """
    begin = _message(_BATCH_BEGIN, _REQUEST, 0, 0, _SUBSYSTEM)
    end = _message(_BATCH_END, _REQUEST, 2, 0, _SUBSYSTEM)
    connection.send(b"".join([begin, *requests, end]))
    errors: list[OSError] = []
    answered = 0
    while answered < len(requests):
        try:
            answers = connection.recv(65536, 0 if answered == 0 else socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        for kind, payload in netlink.split(answers):
            answered += 1
            try:
                if kind == _ERROR:
                    netlink.raise_error(payload)
            except OSError as error:
                errors.append(error)
    if errors:
        raise errors[0]


def read_counters(connection: socket.socket) -> dict[str, int]:
    """Packets by named counter of our table. Raises OSError."""
    body = netlink.string(1, TABLE) + netlink.attribute(3, _COUNTER_OBJECT)  # NFTA_OBJ_TABLE, NFTA_OBJ_TYPE
    connection.send(_request(_GET_OBJECT, _DUMP, body))
    counters: dict[str, int] = {}
    for payload in netlink.dumped(connection):
        attributes = dict(netlink.attributes(payload[4:]))
        packets = dict(netlink.attributes(attributes[4]))[2]  # NFTA_OBJ_DATA { NFTA_COUNTER_PACKETS }
        counters[attributes[2].rstrip(b"\0").decode()] = int.from_bytes(packets)
    return counters


def _interval(network: IPv4Network) -> Iterator[bytes]:
    """First address, and the one behind the last as the interval's end."""
    yield _element(int(network.network_address))
    behind = int(network.broadcast_address) + 1
    if behind < 1 << 32:
        yield _element(behind, netlink.attribute(3, _INTERVAL_END))


def _element(address: int, more: bytes = b"") -> bytes:
    """NFTA_LIST_ELEM { NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE }, … NFTA_SET_ELEM_FLAGS or …_TIMEOUT, in ms }."""
    key = netlink.nest(1, [netlink.attribute(1, address.to_bytes(4))])
    return netlink.nest(1, [key, more])


def _request(operation: int, flags: int, body: bytes) -> bytes:
    return _message((_SUBSYSTEM << 8) | operation, _REQUEST | flags, 1, _FAMILY_INET, 0, body)


def _message(kind: int, flags: int, sequence: int, family: int, resource: int, body: bytes = b"") -> bytes:
    payload = struct.pack("=BB", family, 0) + resource.to_bytes(2) + body
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload
