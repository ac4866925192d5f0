"""Events of connection tracking as bytes: what they say, and that no bytes do harm."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from netns import conntrack, netlink

NEW, UPDATE, DESTROY = (0x100, 0x600), (0x100, 0), (0x102, 0)


def event(
    kind: tuple[int, int], protocol: int = 6, flow: int = 7, state: int | None = None, zone: bool = False
) -> bytes:
    """An event as the kernel writes it; with a zone the id is not where it usually is."""
    addresses = netlink.nest(1, [netlink.attribute(1, bytes(4)), netlink.attribute(2, bytes(4))])
    ports = [netlink.attribute(2, b"\x12\x34"), netlink.attribute(3, b"\x00\x50")]
    proto = netlink.nest(2, [netlink.attribute(1, bytes([protocol])), *ports])
    parts = [netlink.nest(number, [addresses, proto]) for number in (1, 2)]
    if zone:
        parts.append(netlink.attribute(18, b"\0\1"))
    parts.append(netlink.attribute(12, flow.to_bytes(4)))
    if state is not None:
        parts.append(netlink.nest(4, [netlink.nest(1, [netlink.attribute(1, bytes([state]))])]))
    body = b"\x02\0\0\0" + b"".join(parts)
    return struct.pack("=IHHII", 16 + len(body), *kind, 1, 0) + body


def said(data: bytes) -> tuple[int, int, bool] | None:
    flow = conntrack.parse(data)
    return None if flow is None else flow[:3]


def test_events_are_read() -> None:
    for zone in (False, True):
        assert said(event(NEW, 17, 9, zone=zone)) == (17, 9, False)
        assert said(event(NEW, 6, 2**32 - 1, state=1, zone=zone)) == (6, 2**32 - 1, False)
        assert said(event(DESTROY, 6, 8, zone=zone)) == (6, 8, True)
        for state in range(16):
            assert said(event(UPDATE, 6, 8, state=state, zone=zone)) == (6, 8, state in (7, 8))


def test_other_protocols_and_messages_are_passed_over() -> None:
    assert said(event(NEW, 1)) is None
    assert said(event((0x200, 0))) is None
    assert said(event((0x2, 0))) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data: bytes) -> None:
    conntrack.parse(data)


@given(st.sampled_from([NEW, UPDATE, DESTROY]), st.integers(0, 300), st.integers(0, 255), st.integers(0, 300))
def test_damaged_events_are_survived(kind: tuple[int, int], place: int, byte: int, length: int) -> None:
    data = bytearray(event(kind, state=3))
    data[place % len(data)] = byte
    conntrack.parse(bytes(data[:length]))


@given(st.lists(st.tuples(st.sampled_from([6, 17]), st.integers(0, 2**32 - 1))), st.binary(max_size=4))
def test_packed_flows_come_out_again(flows: list[tuple[int, int]], rest: bytes) -> None:
    packed = conntrack.pack(conntrack.Flow(protocol, flow, False, b"") for protocol, flow in flows)
    assert list(conntrack.unpack(packed + rest)) == flows
