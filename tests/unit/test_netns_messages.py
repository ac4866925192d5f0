"""The socket between server and netd: typed values survive, everything else is one error."""

import contextlib
import json
import os
import socket
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.config.egress import MAX_PORT_RANGES, MAX_PREFIXES
from aero_l2.config.forwards import MAX_FORWARDS
from aero_l2.policy.egress import EgressPolicy
from netns import messages
from netns.errors import MessageError, TruncatedMessage
from netns.messages import (
    Adopt,
    Counted,
    Create,
    Failed,
    HostAddresses,
    Made,
    NatReady,
    NatSick,
    OpenAddresses,
    Opened,
    ReadCounters,
    Release,
    Relieved,
    decode_answer,
    decode_request,
    encode,
)
from netns.spec import Forward, SegmentSpec

UNICAST = st.integers(0x01000000, 0x7EFFFFFF).map(IPv4Address)
PORTS = st.integers(1, 65535)
RANGES = st.tuples(PORTS, PORTS).map(lambda pair: (min(pair), max(pair)))
FORWARDS = st.builds(
    Forward,
    st.sampled_from(["tcp", "udp"]),
    UNICAST,
    PORTS.filter(lambda p: p not in (53, 67)),
    UNICAST,
    PORTS,
)
NETWORKS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
    lambda n: IPv4Network(n, strict=False)
)
SPECS = st.builds(
    SegmentSpec,
    denied=st.lists(NETWORKS, max_size=5).map(tuple),
    allowed=st.lists(NETWORKS, max_size=5).map(tuple),
    special=st.lists(NETWORKS, max_size=5).map(tuple),
    denied_tcp_ports=st.lists(RANGES, max_size=3).map(tuple),
    allowed_tcp_ports=st.lists(RANGES, max_size=3).map(tuple),
    denied_udp_ports=st.lists(RANGES, max_size=3).map(tuple),
    allowed_udp_ports=st.lists(RANGES, max_size=3).map(tuple),
    forwards=st.lists(FORWARDS, max_size=3, unique_by=lambda f: (f.protocol, f.address, f.port)).map(tuple),
    max_tcp_flows=st.integers(0, 1_000_000),
    max_udp_flows=st.integers(0, 1_000_000),
    udp_idle_s=st.integers(1, 86400),
    max_bytes_per_second=st.integers(0, 4_000_000_000),
    bytes_burst=st.integers(65_536, 4_000_000_000),
    only_named=st.booleans(),
    redirect_dns=st.booleans(),
)
SPECIAL = EgressPolicy().special_networks
IDS = st.integers(1, 2**53)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


OPENINGS = st.dictionaries(UNICAST, st.integers(1, 2**32), min_size=1, max_size=9).map(
    lambda found: tuple(found.items())
)


@given(
    st.one_of(
        st.builds(Create, IDS, SPECS),
        st.builds(Adopt, IDS),
        st.builds(Release, IDS),
        st.builds(OpenAddresses, IDS, IDS, OPENINGS),
    )
)
def test_requests_survive_the_wire(request: Any) -> None:
    assert decode_request(encode(request)) == request


@pytest.mark.parametrize(
    "answer",
    [
        Made(7),
        NatReady(7),
        NatSick(7, "it spins"),
        Relieved(7, 3, "its TCP connections held 4.0 MiB"),
        Opened(7, 8, True),
        Opened(7, 8, False),
        Failed(7, "no permission on /dev/net/tun"),
        Counted(7, 8, {"denied_host": 3}),
        Counted(7, 8, None),
        HostAddresses(frozenset({IPv4Address("45.33.32.10")})),
    ],
)
def test_answers_survive_the_wire(answer: Any) -> None:
    assert decode_answer(encode(answer)) == answer


def test_read_counters_survives_the_wire() -> None:
    assert decode_request(encode(ReadCounters(3, 4))) == ReadCounters(3, 4)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_error_at_worst(data: bytes) -> None:
    for decode in (decode_request, decode_answer):
        with pytest.raises(MessageError):
            decode(data)


@given(SPECS, st.sampled_from(SegmentSpec.__slots__), JSON)
def test_any_value_in_any_field_is_a_message_error_at_worst(
    spec: SegmentSpec, field: str, value: Any
) -> None:
    fields = {**spec.to_message(), field: value}
    message = json.dumps({"op": "create", "id": 1, "spec": fields}).encode()
    try:
        decoded = decode_request(message)
    except MessageError:
        return
    assert isinstance(decoded, Create)


@given(FORWARDS, st.integers(0, 4), JSON)
def test_any_value_in_a_forward_is_a_message_error_at_worst(forward: Forward, place: int, value: Any) -> None:
    fields = SegmentSpec(forwards=(forward,)).to_message()
    fields["forwards"][0][place] = value
    with contextlib.suppress(MessageError):
        decode_request(json.dumps({"op": "create", "id": 1, "spec": fields}).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("denied", ["10.0.0.1/8"]),
        ("denied", ["10.0.0.0/8; drop"]),
        ("denied", ["::/0"]),
        ("allowed", ["10.0.0.1/8"]),
        ("special", [7]),
        ("allowed", ["10.0.0.0/8"] * 513),
        ("allowed_tcp_ports", [[0, 5]]),
        ("allowed_udp_ports", [[1, 65536]]),
        ("allowed_udp_ports", [[5]]),
        ("denied_tcp_ports", [[0, 5]]),
        ("denied_tcp_ports", [[9, 5]]),
        ("denied_tcp_ports", [["25", 25]]),
        ("forwards", [["icmp", "1.2.3.4", 1, "1.2.3.4", 1]]),
        ("forwards", [["tcp", "1.2.3.4", 1, "127.0.0.2", 1]]),
        ("forwards", [["tcp", "10.0.2.2", 53, "1.2.3.4", 1]]),
        ("forwards", [["udp", "10.0.2.2", 6900, "127.0.0.1", 69]]),
        ("forwards", [["tcp", "1.2.3.4", 1, "224.0.0.1", 1]]),
        ("forwards", [["tcp", "1.2.3.4", 1, "5.6.7.8", 1]] * 2),
        ("only_named", 1),
        ("redirect_dns", "yes"),
        ("max_tcp_flows", True),
        ("max_tcp_flows", -1),
        ("udp_idle_s", 0),
        ("max_bytes_per_second", -1),
        ("max_bytes_per_second", 4_000_000_001),
        ("bytes_burst", 65_535),
        ("unknown", 1),
    ],
)
def test_wrong_values_are_refused(field: str, value: Any) -> None:
    fields = {**SegmentSpec().to_message(), field: value}
    with pytest.raises(MessageError):
        decode_request(json.dumps({"op": "create", "id": 1, "spec": fields}).encode())


@pytest.mark.parametrize(
    "openings",
    [
        [],
        [["93.184.216.34", 0]],
        [["93.184.216.34", -1]],
        [["93.184.216.34", 2**32 + 1]],
        [["93.184.216.34", 1.5]],
        [["93.184.216.34", True]],
        [["93.184.216.34", "60"]],
        [["93.184.216.34"]],
        ["93.184.216.34"],
        [["2001:db8::1", 60]],
        [["93.184.216.0/24", 60]],
        [[1572395042, 60]],
        [["93.184.216.34", 60], ["93.184.216.34", 60]],
        [[f"93.184.{n}.34", 60] for n in range(1, 256)] + [["1.1.1.1", 60], ["1.1.1.2", 60]],
        "93.184.216.34",
    ],
)
def test_wrong_openings_are_refused(openings: Any) -> None:
    with pytest.raises(MessageError):
        decode_request(json.dumps({"op": "open", "id": 1, "request": 2, "openings": openings}).encode())


def test_longest_lists_that_settings_accept_fit_a_message() -> None:
    prefixes = tuple(IPv4Network((0xC8000000 + 512 * n, 24)) for n in range(MAX_PREFIXES))
    ranges = tuple((10_000 + 3 * n, 10_001 + 3 * n) for n in range(MAX_PORT_RANGES))
    target = IPv4Address("198.51.100.100")
    forwards = tuple(Forward("tcp", target, 10_000 + n, target, 10_000) for n in range(MAX_FORWARDS))
    spec = SegmentSpec(prefixes, prefixes, SPECIAL, ranges, ranges, ranges, ranges, forwards)
    assert decode_request(encode(Create(2**53 - 1, spec))) == Create(2**53 - 1, spec)


def test_deeply_nested_message_is_refused() -> None:
    with pytest.raises(MessageError):
        decode_request(b"[" * 60_000)


def test_descriptors_that_do_not_fit_are_closed_and_told() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open(os.devnull) as file:
        messages.send(ours, Made(1), [file.fileno()] * (messages.MAX_DESCRIPTORS + 4))
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(TruncatedMessage) as caught:
            messages.receive(theirs)
        assert set(os.listdir("/proc/self/fd")) <= before
    assert decode_answer(caught.value.data) == Made(1)
