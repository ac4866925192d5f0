"""DHCP answers as scapy reads them, for requests as odd real clients send them."""

import struct
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from aero_l2.services.dhcp import codec
from aero_l2.services.dhcp.codec import DhcpError, DhcpMessage, decode, encode
from aero_l2.services.dhcp.reply import Reply, answer

MAC = bytes.fromhex("525500112233")
BROADCAST, GUEST = IPv4Address("255.255.255.255"), IPv4Address("10.0.2.15")


def request(options: list[Any], **fields: Any) -> bytes:
    """A client's message, written by scapy."""
    head: dict[str, Any] = {"op": 1, "xid": 0x01020304, "chaddr": MAC, "flags": 0x8000, "secs": 4} | fields
    return bytes(BOOTP(**head) / DHCP(options=[*options, "end"]))


def read(reply: Reply | None) -> tuple[BOOTP, dict[str, Any]]:
    """An answer, read by scapy."""
    assert reply is not None
    message = BOOTP(reply.payload)
    options = {item[0]: item[1] for item in message[DHCP].options if isinstance(item, tuple)}
    return message, options


def raw(options: bytes, sname: bytes = b"", file: bytes = b"", *, hlen: int = 6, htype: int = 1) -> bytes:
    zero = bytes(4)
    return struct.pack(
        "!BBBBIHH4s4s4s4s16s64s128s4s",
        *(1, htype, hlen, 0, 7, 0, 0, zero, zero, zero, zero, MAC, sname, file, codec.MAGIC_COOKIE),
    ) + options  # fmt: skip


def test_discover_is_offered_the_lease() -> None:
    reply = answer(request([("message-type", "discover")]))
    message, options = read(reply)
    assert (message.op, message.xid, message.flags, message.chaddr[:6]) == (2, 0x01020304, 0x8000, MAC)
    assert (message.yiaddr, message.siaddr, message.ciaddr) == ("10.0.2.15", "10.0.2.2", "0.0.0.0")
    assert options == {
        "message-type": 2,
        "server_id": "10.0.2.2",
        "subnet_mask": "255.255.255.0",
        "router": "10.0.2.2",
        "name_server": "10.0.2.2",
        "interface-mtu": 1500,
        "lease_time": 86400,
        "renewal_time": 43200,
        "rebinding_time": 75600,
    }
    assert reply is not None
    assert (reply.destination, reply.port) == (BROADCAST, 68)
    assert len(reply.payload) >= 300


def test_message_type_and_server_come_first() -> None:
    reply = answer(request([("message-type", "discover")]))
    assert reply is not None
    assert reply.payload[240:249] == bytes([53, 1, 2, 54, 4, 10, 0, 2, 2])


@pytest.mark.parametrize(
    ("options", "fields", "destination"),
    [
        pytest.param(
            [("server_id", "10.0.2.2"), ("requested_addr", "10.0.2.15")], {}, BROADCAST, id="selecting"
        ),
        pytest.param([("requested_addr", "10.0.2.15")], {}, BROADCAST, id="reboot-without-discover"),
        pytest.param([], {"ciaddr": "10.0.2.15"}, GUEST, id="renewing-or-rebinding"),
        pytest.param([], {}, BROADCAST, id="names-no-address"),
        pytest.param([], {"chaddr": bytes.fromhex("02aabbccddee")}, BROADCAST, id="new-mac"),
    ],
)
def test_request_is_acknowledged(
    options: list[Any], fields: dict[str, Any], destination: IPv4Address
) -> None:
    reply = answer(request([("message-type", "request"), *options], **fields))
    message, read_options = read(reply)
    assert reply is not None
    assert (message.yiaddr, message.siaddr) == ("10.0.2.15", "10.0.2.2")
    assert message.ciaddr == fields.get("ciaddr", "0.0.0.0")
    assert (read_options["message-type"], read_options["lease_time"]) == (5, 86400)
    assert reply.destination == destination


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        pytest.param(
            [("server_id", "10.0.2.2"), ("requested_addr", "10.0.2.16")], {}, id="selecting-foreign"
        ),
        pytest.param([("requested_addr", "192.168.1.7")], {}, id="reboot-elsewhere"),
        pytest.param([], {"ciaddr": "192.168.1.7"}, id="renewing-elsewhere"),
        pytest.param([("requested_addr", "10.0.2.15")], {"ciaddr": "10.0.2.2"}, id="contradiction"),
    ],
)
def test_foreign_address_is_refused_by_broadcast(options: list[Any], fields: dict[str, Any]) -> None:
    reply = answer(request([("message-type", "request"), *options], **fields))
    message, read_options = read(reply)
    assert reply is not None
    assert reply.destination == BROADCAST
    assert (message.yiaddr, message.ciaddr, message.siaddr) == ("0.0.0.0",) * 3
    assert set(read_options) == {"message-type", "server_id", "error_message"}
    assert read_options["message-type"] == 6


@pytest.mark.parametrize("kind", ["discover", "request", "inform"])
def test_another_servers_client_is_left_alone(kind: str) -> None:
    assert answer(request([("message-type", kind), ("server_id", "10.0.2.3")])) is None


@pytest.mark.parametrize("kind", ["decline", "release", "offer", "ack", "nak", "force_renew"])
def test_messages_without_an_answer_are_tolerated(kind: str) -> None:
    assert answer(request([("message-type", kind)], ciaddr="10.0.2.15")) is None


def test_inform_gets_everything_but_a_lease() -> None:
    reply = answer(request([("message-type", "inform")], ciaddr="10.0.2.15"))
    message, options = read(reply)
    assert reply is not None
    assert (message.yiaddr, message.ciaddr, reply.destination) == ("0.0.0.0", "10.0.2.15", GUEST)
    assert options["router"] == "10.0.2.2"
    assert not {"lease_time", "renewal_time", "rebinding_time"} & set(options)


def test_inform_without_an_address_is_answered_by_broadcast() -> None:
    reply = answer(request([("message-type", "inform")]))
    assert reply is not None
    assert reply.destination == BROADCAST


def test_inform_from_a_foreign_address_is_left_alone() -> None:
    assert answer(request([("message-type", "inform")], ciaddr="192.168.1.7")) is None


@pytest.mark.parametrize("kind", [codec.DISCOVER, codec.REQUEST, codec.INFORM])
@pytest.mark.parametrize(
    "identifier", [b"\x01" + MAC, b"\x00abc\x00", b"\xff" + bytes(range(18)), b"", b"x" * 255]
)
def test_client_identifier_comes_back_byte_for_byte(kind: int, identifier: bytes) -> None:
    reply = answer(raw(bytes([53, 1, kind, 61, len(identifier)]) + identifier + b"\xff"))
    assert reply is not None
    assert decode(reply.payload).options[61] == identifier
    assert len(reply.payload) <= 548


def test_relay_address_is_echoed_but_not_dialled() -> None:
    reply = answer(request([("message-type", "discover")], giaddr="192.168.7.1"))
    message, _ = read(reply)
    assert reply is not None
    assert (message.giaddr, reply.destination) == ("192.168.7.1", BROADCAST)


def test_rapid_commit_is_answered_by_an_offer() -> None:
    reply = answer(raw(b"\x35\x01\x01\x50\x00\xff"))
    assert reply is not None
    assert decode(reply.payload).kind == codec.OFFER
    assert 80 not in decode(reply.payload).options


def option(code: int, value: bytes | str) -> bytes:
    """One option; a str is hex."""
    data = bytes.fromhex(value) if isinstance(value, str) else value
    return bytes([code, len(data)]) + data


TYPE, END = option(53, "01"), b"\xff"
MAC_ID = option(61, b"\x01" + MAC)

# What odd clients send, in the layout their sources and captures show.
ODD_CLIENTS = {
    "ipxe": raw(
        TYPE
        + option(57, "05c0")
        + option(93, "0000")
        + option(94, "010201")
        + option(60, b"PXEClient:Arch:00000:UNDI:002001")
        + option(77, b"iPXE")
        + option(55, "010306070c0f111a2b3c4243778081828386afcb")
        + option(175, "b1050210ec81a2eb03011501170101220101130101")
        + MAC_ID
        + option(97, b"\x00" + bytes(16))
        + END
    ),
    "u-boot": raw(
        TYPE + option(57, "0240") + option(60, b"U-Boot.armv8") + option(55, "0103060c11") + END
    ).ljust(548, b"\x00"),
    "udhcpc": raw(
        TYPE + MAC_ID + option(57, "0240") + option(55, "0103060c0f1c2a") + option(60, b"udhcp 1.35.0") + END
    ).ljust(300, b"\x00"),
    "dhclient": raw(TYPE + option(12, b"debian") + option(55, "011c02790f060c28292a1a77032a") + END).ljust(
        300, b"\x00"
    ),
    "windows": raw(
        TYPE
        + MAC_ID
        + option(12, b"DESKTOP-ABCDEFG")
        + option(81, b"\x00\x00\x00DESKTOP-ABCDEFG")
        + option(60, b"MSFT 5.0")
        + option(55, "0103060f1f212b2c2e2f7779f9fc")
        + option(43, b"\xdc\x00")
        + END
    ),
    "no-end-option": raw(TYPE),
    "bootp-padding": raw(TYPE + END.ljust(64, b"\x00")),
    "pads-between": raw(b"\x00\x00" + TYPE + b"\x00\x00" + option(55, "01") + b"\x00" + END),
    "type-in-file": raw(option(52, "01") + END, file=TYPE + END),
    "type-in-sname": raw(option(52, "02") + END, sname=TYPE),
    "overload-both": raw(option(52, "03") + END, file=option(12, b"a") + END, sname=TYPE + END),
    "split-option": raw(TYPE + option(61, b"\x00a") + option(61, b"bc") + END),
    "after-end": raw(TYPE + END + option(53, "07")),
}


@pytest.mark.parametrize("name", ODD_CLIENTS)
def test_odd_client_is_offered_the_lease(name: str) -> None:
    message, options = read(answer(ODD_CLIENTS[name]))
    assert (options["message-type"], message.yiaddr) == (2, "10.0.2.15")


def test_split_option_is_joined() -> None:
    assert decode(ODD_CLIENTS["split-option"]).options[61] == b"\x00abc"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(raw(b"\x35\x01\x01\xff")[:239], id="short"),
        pytest.param(raw(b"")[:236] + bytes(64), id="plain-bootp-without-cookie"),
        pytest.param(raw(b"\xff"), id="no-message-type"),
        pytest.param(raw(b"\x35\x01"), id="option-cut"),
        pytest.param(raw(b"\x35"), id="option-without-length"),
        pytest.param(raw(b"\x35\x02\x01\x01\xff"), id="long-message-type"),
        pytest.param(raw(b"\x35\x01\x03\x32\x03abc\xff"), id="short-address"),
        pytest.param(raw(b"\x35\x01\x01\x36\x00\xff"), id="empty-server"),
        pytest.param(raw(b"\x35\x01\x01\x34\x01\x04\xff"), id="bad-overload"),
        pytest.param(raw(b"\x35\x01\x01\xff", hlen=16), id="bad-hlen"),
        pytest.param(raw(b"\x35\x01\x01\xff", htype=6), id="not-ethernet"),
        pytest.param(raw(TYPE + option(61, b"x" * 255) + option(61, b"y")), id="endless-client-id"),
        pytest.param(b"\x02" + raw(b"\x35\x01\x01\xff")[1:], id="a-reply"),
    ],
)
def test_what_is_no_request_is_ignored(data: bytes) -> None:
    assert answer(data) is None


@given(st.binary(max_size=600))
def test_any_bytes_are_survived(data: bytes) -> None:
    answer(data)


@given(st.binary(max_size=400), st.binary(max_size=64), st.binary(max_size=128))
def test_any_options_are_survived(options: bytes, sname: bytes, file: bytes) -> None:
    for start in (b"\x35\x01\x01", b"\x35\x01\x03", b"\x35\x01\x08\x34\x01\x03"):
        reply = answer(raw(start + options, sname, file))
        assert reply is None or (reply.port == 68 and reply.destination in (BROADCAST, GUEST))


addresses = st.integers(0, 0xFFFFFFFF).map(IPv4Address)


@given(
    st.builds(
        DhcpMessage,
        op=st.integers(0, 255),
        xid=st.integers(0, 0xFFFFFFFF),
        chaddr=st.binary(min_size=16, max_size=16),
        options=st.dictionaries(
            st.integers(1, 254).filter(lambda code: code != codec.OVERLOAD),
            st.binary(max_size=600),
            max_size=8,
        ),
        flags=st.integers(0, 0xFFFF),
        ciaddr=addresses,
        giaddr=addresses,
    )
)
def test_what_is_written_reads_the_same(message: DhcpMessage) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=400))
def test_decode_raises_its_own_error_only(data: bytes) -> None:
    for body in (data, raw(data)):
        with suppress(DhcpError):
            decode(body)
