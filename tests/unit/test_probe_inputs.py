"""What the probe reads: targets from the command line; leases, DNS and HTTP answers from strangers."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.probe import dhcp, http, names
from aero_l2.probe.outcome import Kind, StepFailed
from aero_l2.probe.targets import BadTarget, ProbeTarget, Scheme, parse_target
from aero_l2.services.dhcp import codec
from aero_l2.services.dhcp.codec import DhcpMessage
from aero_l2.services.dhcp.reply import answer

MAC, XID = b"\x02\0\0\0\0\x0f", 0x12345678


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://10.1.2.3:22", ProbeTarget(Scheme.TCP, IPv4Address("10.1.2.3"), 22)),
        ("tcp-echo://Echo.Example:7", ProbeTarget(Scheme.TCP_ECHO, "echo.example", 7)),
        ("tcp-discard://a.example:9/", ProbeTarget(Scheme.TCP_DISCARD, "a.example", 9)),
        ("udp-echo://10.1.2.3:7", ProbeTarget(Scheme.UDP_ECHO, IPv4Address("10.1.2.3"), 7)),
        ("http://a.example", ProbeTarget(Scheme.HTTP, "a.example", 80)),
        ("http://a.example:8080/x?y=z", ProbeTarget(Scheme.HTTP, "a.example", 8080, "/x?y=z")),
    ],
)
def test_target_is_read(text: str, expected: ProbeTarget) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.example:80",
        "https://a.example",
        "ftp://a.example:1",
        "tcp://a.example",
        "tcp://:80",
        "tcp://a.example:0",
        "tcp://a.example:99999",
        "tcp://a.example:x",
        "tcp://a.example:1/path",
        "tcp://[::1]:1",
        "tcp://1.2.3:1",
        "tcp://a b:1",
        "http://user:secret@a.example/",
        "http://a.example/#part",
        "http://a.example/\u00e4",
        "http://a.example/a b",
        "http://[::1",
    ],
)
def test_what_is_no_target_is_refused_in_one_line_without_secrets(text: str) -> None:
    with pytest.raises(BadTarget) as refused:
        parse_target(text)
    assert str(refused.value).isprintable()
    assert "secret" not in str(refused.value)


def test_query_of_a_target_is_sent_and_never_shown() -> None:
    target = parse_target("http://a.example:81/x?key=secret")
    assert (str(target), repr(target)) == ("http://a.example:81/x", "http://a.example:81/x")
    assert b"GET /x?key=secret HTTP/1.1\r\nHost: a.example:81\r\n" in http.request(target)


@given(st.text(max_size=40), st.sampled_from(["", "tcp://", "http://", "udp-echo://"]))
def test_any_text_is_a_target_or_none(text: str, scheme: str) -> None:
    with contextlib.suppress(BadTarget):
        assert str(parse_target(scheme + text)).isascii()


# -- DHCP


def ack(**options: bytes) -> DhcpMessage:
    """A good ACK, and what is different about it: o3=… for option 3, b"" leaves it out."""
    given_ = {
        codec.MESSAGE_TYPE: b"\x05",
        codec.SUBNET_MASK: b"\xff\xff\xff\0",
        codec.ROUTER: b"\x0a\0\x02\x02",
        codec.DNS_SERVERS: b"\x0a\0\x02\x02",
        codec.LEASE_TIME: b"\0\0\x0e\x10",
        codec.SERVER_ID: b"\x0a\0\x02\x02",
        codec.INTERFACE_MTU: b"\x05\xdc",
    } | {int(name[1:]): value for name, value in options.items()}
    kept = {code: value for code, value in given_.items() if value}
    return DhcpMessage(2, XID, MAC.ljust(16, b"\0"), kept, yiaddr=IPv4Address("10.0.2.15"))


def test_our_own_server_gives_a_lease_and_every_part_of_it_is_shown() -> None:
    offered = answer(dhcp.discover(MAC, XID))
    assert offered is not None
    offer = dhcp.read(offered.payload, MAC, XID)
    assert offer is not None
    given_ = answer(dhcp.request(MAC, XID, offer))
    assert given_ is not None
    message = dhcp.read(given_.payload, MAC, XID)
    assert message is not None
    lease = dhcp.lease_of(message)
    assert lease.facts() == {
        "address": "10.0.2.15",
        "mask": "255.255.255.0",
        "router": "10.0.2.2",
        "dns": ["10.0.2.2"],
        "server": "10.0.2.2",
        "lease_s": 86400,
        "mtu": 1500,
    }
    assert str(lease) == (
        "10.0.2.15/24, router 10.0.2.2, DNS 10.0.2.2, server 10.0.2.2, for 86400 s, MTU 1500"
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"o1": b""}, "no mask"),
        ({"o1": b"\xff\0\xff\0"}, "255.0.255.0"),
        ({"o1": b"\xff"}, "damaged"),
        ({"o3": b""}, "no router"),
        ({"o3": b"\x0a\0\x02"}, "damaged"),
        ({"o6": b""}, "no DNS server"),
        ({"o51": b""}, "lacks the server or the time"),
        ({"o54": b""}, "lacks the server or the time"),
        ({"o54": b"\1"}, "damaged"),
        ({"o26": b"\0\1"}, "MTU"),
    ],
)
def test_lease_that_no_guest_could_use_is_named(options: dict[str, bytes], text: str) -> None:
    with pytest.raises(dhcp.BadLease, match=text):
        dhcp.lease_of(ack(**options))


def test_answers_to_others_are_not_read() -> None:
    wire = codec.encode(ack())
    assert dhcp.read(wire, MAC, XID) is not None
    assert dhcp.read(wire, MAC, XID + 1) is None
    assert dhcp.read(wire, b"\x02\0\0\0\0\x01", XID) is None
    assert dhcp.read(codec.encode(ack(o53=b"\1")), MAC, XID) is None


@given(st.binary(max_size=600), st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_none(data: bytes, options: bytes) -> None:
    wire = codec.encode(ack())[:240] + options
    for message in (dhcp.read(data, MAC, XID), dhcp.read(wire, MAC, XID)):
        if message is not None:
            with contextlib.suppress(dhcp.BadLease):
                assert str(dhcp.lease_of(message)).isprintable()


def test_reason_of_a_nak_is_printable() -> None:
    assert dhcp.why_refused(ack(o56=b"go\x1b[2J away\n")) == (
        "the server refuses the lease that it offered (NAK: go?[2J away)"
    )


# -- DNS


def reply(rcode: int = 0, *records: str) -> dns.message.Message:
    query = names.question("a.example")
    made = dns.message.make_response(query)
    made.set_rcode(dns.rcode.Rcode(rcode))
    for record in records:
        made.answer.append(dns.rrset.from_text("a.example.", 60, "IN", *record.split(" ", 1)))
    return made


def test_addresses_are_read_and_nxdomain_is_told_from_an_empty_answer() -> None:
    found = names.read_answer(reply(0, "CNAME b.example.", "A 10.0.0.1"), "x")
    assert found == names.Answer(True, (IPv4Address("10.0.0.1"),))
    assert names.read_answer(reply(0), "x") == names.Answer(True, ())
    assert names.read_answer(reply(3), "x") == names.Answer(False, ())


@pytest.mark.parametrize("rcode", [1, 2, 4, 5, 9])
def test_failures_of_the_server_are_failures(rcode: int) -> None:
    with pytest.raises(StepFailed) as failed:
        names.read_answer(reply(rcode), "x")
    assert failed.value.kind is Kind.DNS
    assert dns.rcode.to_text(dns.rcode.Rcode(rcode)) in failed.value.reason


def test_answer_to_another_question_is_none() -> None:
    query = names.question("a.example")
    good = dns.message.make_response(query)
    assert names.reply_to(query, good.to_wire()) is not None
    other = dns.message.make_response(names.question("b.example"))
    other.id = query.id
    assert names.reply_to(query, other.to_wire()) is None
    good.id ^= 1
    assert names.reply_to(query, good.to_wire()) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_dns_answer_or_none(data: bytes) -> None:
    query = names.question("a.example")
    wire = dns.message.make_response(query).to_wire()
    names.reply_to(query, data)
    names.reply_to(query, wire[:6] + b"\0\7\0\0\0\0" + wire[12:] + data)


def test_compression_loops_are_no_answer() -> None:
    query = names.question("a.example")
    wire = dns.message.make_response(query).to_wire()
    loop = wire[:6] + b"\0\1\0\0\0\0" + wire[12:27] + b"\xc0\x1b\0\1\0\1\0\0\0\1\0\4\1\2\3\4"
    assert names.reply_to(query, loop) is None


# -- HTTP


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody", (200, b"body")),
        (b"HTTP/1.0 302\r\n\r\n", (302, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\n\r\nx", (404, b"x")),
        (b"", None),
        (b"HT", None),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", None),
    ],
)
def test_head_of_an_answer_is_read(data: bytes, expected: tuple[int, bytes] | None) -> None:
    assert http.split_head(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 999 x\r\n\r\n",
        b"HTTP/1.1 \x1b[2J\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a" * 20_000,
    ],
)
def test_what_is_no_http_is_refused_printably(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[ -~]*$"):
        http.split_head(data)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_head_or_not(data: bytes) -> None:
    for start in (b"", b"HTTP/1.1 "):
        with contextlib.suppress(ValueError):
            http.split_head(start + data)
