"""What the kernel says of flows and refused packets, as bytes that may be anything."""

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns import denials, details, messages, netlink
from netns.auditrules import COPIED
from netns.details import Ends, Facts
from netns.errors import MessageError

ports = st.integers(0, 65535)
addresses = st.binary(min_size=4, max_size=4)
ends = st.builds(Ends, st.sampled_from(details.PROTOCOLS), addresses, ports, addresses, ports)
counts = st.integers(0, 2**64 - 1)
facts = st.builds(
    Facts,
    st.integers(0, 2**32 - 1),
    ends,
    addresses,
    ports,
    st.integers(0, 255),
    ports,
    st.booleans(),
    counts,
    counts,
    counts,
    counts,
)


@given(st.lists(facts, max_size=5), st.binary(max_size=20))
def test_packed_flows_are_read_again(flows: list[Facts], more: bytes) -> None:
    packed = b"".join(map(details._pack, flows))
    assert list(details.unpack(packed + more)) == flows


@given(st.lists(ends, max_size=5))
def test_flows_to_look_up_cross_the_socket(wanted: list[Ends]) -> None:
    request = messages.ListFlows(1, 2, tuple(wanted))
    assert messages.decode_request(messages.encode(request)) == request


def test_as_many_as_may_be_asked_for_fit_a_message() -> None:
    longest = Ends(17, b"\xff" * 4, 65535, b"\xff" * 4, 65535)
    messages.encode(messages.ListFlows(2**53, 2**53, (longest,) * details.MAX_WANTED))


@pytest.mark.parametrize(
    "value",
    [
        {},
        [[]],
        [[6, "0a00020f", 1, "0a00020f"]],
        [[99, "0a00020f", 1, "0a00020f", 1]],
        [[6, "0a00020f00", 1, "0a00020f", 1]],
        [[6, "0a0002xx", 1, "0a00020f", 1]],
        [[6, "0a00020f", -1, "0a00020f", 1]],
        [[6, "0a00020f", True, "0a00020f", 1]],
        [[6, "0a00020f", 1, "0a00020f", 65536]],
        [[6, "0a00020f", 1, "0a00020f", 1]] * (details.MAX_WANTED + 1),
    ],
)
def test_flows_that_are_none_are_refused(value: object) -> None:
    with pytest.raises(MessageError):
        details.from_message(value)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_as_events_and_packets(data: bytes) -> None:
    details.of_event(data)
    list(denials.parse(data))
    for kind in (0x100, 0x102):
        details.of_event(struct.pack("=IHHII", 16 + len(data), kind, 0x400, 0, 0) + data)
    list(denials.parse(struct.pack("=IHHII", 16 + len(data), 0x400, 0, 0, 0) + data))


def _copied(packet: bytes, prefix: str = "denied_port") -> list[denials.Denial]:
    payload = bytes(4) + netlink.string(10, prefix) + netlink.attribute(9, packet[:COPIED])
    return list(denials.parse(struct.pack("=IHHII", 16 + len(payload), 0x400, 0, 0, 0) + payload))


def _header(protocol: int, *, first: int = 0x45, fragment: int = 0) -> bytes:
    target = IPv4Address("198.51.100.9").packed
    return struct.pack("!BBHHHBBH4s4sHH", first, 0, 60, 1, fragment, 64, protocol, 0, target, target, 1, 443)


def test_ports_are_read_only_where_ports_are() -> None:
    """In later fragments, behind options and in other protocols something else stands there."""
    assert _copied(_header(6)) == [denials.Denial("denied_port", 6, "198.51.100.9", 443, False)]
    assert _copied(_header(17), "denied_port/forward")[0].is_forwarded
    for header in (
        *(_header(6, fragment=1), _header(17, fragment=0x1FFF), _header(6, first=0x46)),
        *(_header(1), _header(47), _header(6)[:22]),
    ):
        assert [denial.port for denial in _copied(header)] == [None]
    assert _copied(_header(6, first=0x60)) == []
    assert _copied(b"") == []
