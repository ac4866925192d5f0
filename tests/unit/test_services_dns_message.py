"""A guest's DNS bytes: queries, refusals and silence; replies at the size the way back allows."""

import struct
import time
from collections.abc import Callable

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRROPT

from aero_l2.services.dns.message import MAX_QUERY_BYTES, Query, Refusal, encode, read, reply_to
from aero_l2.services.dns.upstream import request_for


def ask(name: str = "Web.Example.test.", rdtype: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, rdtype, id=0x1234, **options).to_wire()  # type: ignore[arg-type]


def refused(wire: bytes) -> dns.message.Message:
    found = read(wire)
    assert isinstance(found, Refusal)
    answer = dns.message.from_wire(found.wire)
    assert answer.flags & dns.flags.QR
    assert answer.rcode() == found.rcode
    return answer


def test_query_is_read_with_the_case_it_was_asked_in() -> None:
    query = read(bytes(DNS(id=7, rd=1, qd=DNSQR(qname="WwW.example.TEST", qtype="TXT"))))
    assert isinstance(query, Query)
    assert (query.id, str(query.name), query.rdtype) == (7, "WwW.example.TEST.", dns.rdatatype.TXT)
    assert (query.edns, query.payload, query.wants_ad) == (False, 512, False)


def test_edns_of_a_query_is_read() -> None:
    query = read(bytes(DNS(rd=1, qd=DNSQR(qname="a.test"), ar=DNSRROPT(rclass=4096, z=0x8000))))
    assert isinstance(query, Query)
    assert (query.edns, query.payload, query.dnssec_ok, query.wants_ad) == (True, 4096, True, True)


@pytest.mark.parametrize("rdtype", ["A", "AAAA", "ANY", "TXT", "SRV", "HTTPS", "TYPE65280", "DS", "CAA"])
def test_every_type_is_a_query(rdtype: str) -> None:
    assert isinstance(read(ask(rdtype=rdtype)), Query)


@pytest.mark.parametrize("length", [0, 1])
def test_what_has_no_id_is_met_with_silence(length: int) -> None:
    assert read(ask()[:length]) is None


@pytest.mark.parametrize("length", [3, 4, 11, 12, 500])
def test_responses_are_met_with_silence(length: int) -> None:
    response = dns.message.make_response(dns.message.from_wire(ask())).to_wire()
    assert read(response[:length]) is None


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(ask()[:2], id="only-an-id"),
        pytest.param(ask()[:11], id="short-header"),
        pytest.param(ask()[:20], id="short-name"),
        pytest.param(ask()[:-1], id="short-question"),
        pytest.param(ask() + b"\x00", id="trailing-byte"),
        pytest.param(ask()[:4] + b"\x00\x00" + ask()[6:12], id="no-question"),
        pytest.param(ask()[:4] + b"\x00\x02" + ask()[6:] + ask()[12:], id="two-questions"),
        pytest.param(ask()[:6] + b"\x00\x01" + ask()[8:], id="an-answer-counted"),
        pytest.param(ask()[:10] + b"\xff\xff" + ask()[12:], id="many-additional"),
        pytest.param(ask()[:12] + b"\xc0\x0c\x00\x01\x00\x01", id="compression-loop"),
        pytest.param(ask()[:12] + b"\x3fx" * 200 + b"\x00\x00\x01\x00\x01", id="long-name"),
        pytest.param(ask()[:12] + b"\x80\x00\x00\x01\x00\x01", id="bad-label-type"),
        pytest.param(ask().ljust(MAX_QUERY_BYTES + 1, b"\x00"), id="oversized"),
    ],
)
def test_malformed_query_is_formerr_with_its_id(wire: bytes) -> None:
    answer = refused(wire)
    assert (answer.id, answer.rcode()) == (0x1234, dns.rcode.FORMERR)


@pytest.mark.parametrize("opcode", [dns.opcode.STATUS, dns.opcode.NOTIFY, dns.opcode.UPDATE, 1, 6, 15])
def test_other_opcodes_are_not_implemented(opcode: int) -> None:
    wire = ask()
    answer = refused(wire[:2] + bytes([opcode << 3]) + wire[3:])
    assert answer.rcode() == dns.rcode.NOTIMP
    assert answer.opcode() == opcode


@pytest.mark.parametrize(("rdtype", "rdclass"), [("TXT", "CH"), ("A", "HS"), ("A", "ANY"), ("A", "NONE")])
def test_other_classes_are_refused(rdtype: str, rdclass: str) -> None:
    assert refused(ask(rdtype=rdtype, rdclass=rdclass)).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("rdtype", ["AXFR", "IXFR"])
def test_zone_transfers_are_refused(rdtype: str) -> None:
    assert refused(ask(rdtype=rdtype)).rcode() == dns.rcode.REFUSED


def test_unknown_edns_version_is_named_in_the_answer() -> None:
    answer = refused(ask(use_edns=1))
    assert (answer.rcode(), answer.edns) == (dns.rcode.BADVERS, 0)


def test_name_of_255_bytes_is_a_query() -> None:
    name = ".".join(["a" * 63] * 3 + ["b" * 61]) + "."
    assert isinstance(read(ask(name)), Query)


LONG_NAME = b"\x01a" * 126 + b"\x00"
FULL = 1100


def crammed(kind: int, data: bytes, *, authority: bool = False) -> bytes:
    """A query with one more record, of the root."""
    wire = ask()
    counts = b"\x00\x01\x00\x00" if authority else b"\x00\x00\x00\x01"
    return wire[:8] + counts + wire[12:] + b"\x00" + struct.pack("!HHIH", kind, 1, 0, len(data)) + data


def quickest(call: Callable[[], object]) -> float:
    """Seconds of the quickest of some runs: what it costs, not what the machine had to do besides."""

    def once() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return min(once() for _ in range(20))


@pytest.mark.parametrize("authority", [False, True])
@pytest.mark.parametrize(
    ("kind", "data"),
    [
        pytest.param(dns.rdatatype.OPT, struct.pack("!HH", 65001, 0) * (FULL // 4), id="options"),
        pytest.param(dns.rdatatype.TXT, bytes(FULL), id="empty-strings"),
        pytest.param(dns.rdatatype.SOA, LONG_NAME * 2 + bytes(20), id="long-names"),
        pytest.param(dns.rdatatype.HIP, b"\x01\x01\x00\x01aa" + b"\x01a\x00" * (FULL // 3), id="servers"),
        pytest.param(dns.rdatatype.SVCB, b"\x00\x01\x00" + bytes(range(7, 250)) * 4, id="parameters"),
    ],
)
def test_records_of_a_query_cost_nothing(kind: int, data: bytes, authority: bool) -> None:
    wire = crammed(kind, data, authority=authority)
    assert len(wire) <= MAX_QUERY_BYTES
    assert quickest(lambda: read(wire)) < 0.000_5


def test_longest_name_is_answered_at_the_price_of_its_length() -> None:
    wire = ask()[:12] + LONG_NAME + b"\x00\x1c\x00\x01"

    def answer() -> bytes:
        found = read(wire)
        assert isinstance(found, Query)
        assert dns.message.from_wire(request_for(found).to_wire()).question[0].name == found.name
        return encode(reply_to(found), found, tcp=False)

    assert answer()[12:] == wire[12:]
    assert quickest(answer) < 0.002


def test_answers_own_name_is_a_pointer_however_long() -> None:
    found = read(ask()[:12] + LONG_NAME + b"\x00\x01\x00\x01")
    assert isinstance(found, Query)
    reply = reply_to(found)
    reply.answer = [
        dns.rrset.from_text_list(dns.name.Name(found.name.labels), 60, "IN", "A", ["93.184.216.34"])
    ]
    wire = encode(reply, found, tcp=False)
    assert len(wire) == 12 + len(LONG_NAME) + 4 + 16
    assert dns.message.from_wire(wire).answer == reply.answer


def test_empty_answer_is_written_as_dnspython_writes_it() -> None:
    for asked in (query(), query(edns=True), query(edns=True, dnssec_ok=True)):
        for rcode in (dns.rcode.NOERROR, dns.rcode.SERVFAIL, dns.rcode.BADVERS):
            assert encode(reply_to(asked, rcode), asked, tcp=False) == reply_to(asked, rcode).to_wire()


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(crammed(41, b"")[-11:], id="two-opt"),
        pytest.param(b"\x01a\x00" + crammed(41, b"")[-10:], id="opt-with-an-owner"),
        pytest.param(crammed(16, b"abc")[-14:-1], id="data-cut-short"),
        pytest.param(crammed(16, b"")[-11:-3], id="header-cut-short"),
    ],
)
def test_unreadable_record_of_a_query_is_formerr(tail: bytes) -> None:
    first = crammed(41, b"")[-11:]
    wire = ask()
    additional = (tail,) if tail[:1] == b"\x01" else (first, tail)
    head = wire[:10] + bytes([0, len(additional)])
    assert refused(head + wire[12:] + b"".join(additional)).rcode() == dns.rcode.FORMERR


def test_opt_outside_the_additional_section_is_formerr() -> None:
    assert refused(crammed(dns.rdatatype.OPT, b"", authority=True)).rcode() == dns.rcode.FORMERR


def test_signature_beside_opt_is_stepped_over() -> None:
    wire = ask(use_edns=0, payload=1400)
    found = read(wire[:11] + b"\x02" + wire[12:] + crammed(dns.rdatatype.TSIG, b"abc")[-14:])
    assert isinstance(found, Query)
    assert (found.edns, found.payload) == (True, 1400)


def query(**fields: object) -> Query:
    return Query(1, dns.name.from_text("Ab.test."), dns.rdatatype.A, **fields)  # type: ignore[arg-type]


def test_reply_repeats_the_question_and_says_recursion_is_available() -> None:
    reply = dns.message.from_wire(encode(reply_to(query()), query(), tcp=False))
    assert (reply.id, reply.question[0].name.to_text(), reply.edns) == (1, "Ab.test.", -1)
    assert reply.flags == dns.flags.QR | dns.flags.RA | dns.flags.RD


def test_reply_has_opt_only_for_a_query_that_had_it() -> None:
    assert dns.message.from_wire(encode(reply_to(query(edns=True)), query(edns=True), tcp=False)).edns == 0


def test_extended_rcode_without_edns_becomes_servfail() -> None:
    assert reply_to(query(), dns.rcode.BADCOOKIE).rcode() == dns.rcode.SERVFAIL
    assert reply_to(query(edns=True), dns.rcode.BADCOOKIE).rcode() == dns.rcode.BADCOOKIE


def large_reply(asked: Query) -> dns.message.QueryMessage:
    reply = reply_to(asked)
    addresses = [f"93.184.{index // 250}.{index % 250}" for index in range(1000)]
    reply.answer = [dns.rrset.from_text_list(asked.name, 60, "IN", "A", addresses)]
    return reply


@pytest.mark.parametrize(
    ("edns", "payload", "limit"), [(False, 512, 512), (True, 100, 512), (True, 900, 900), (True, 65535, 1232)]
)
def test_large_answer_over_udp_is_cut_to_what_the_client_takes(edns: bool, payload: int, limit: int) -> None:
    asked = query(edns=edns, payload=payload)
    wire = encode(large_reply(asked), asked, tcp=False)
    assert limit - 32 < len(wire) <= limit
    reply = dns.message.from_wire(wire)
    assert reply.flags & dns.flags.TC
    assert reply.answer
    assert (reply.edns >= 0) == edns


def test_large_answer_over_tcp_is_whole() -> None:
    reply = dns.message.from_wire(encode(large_reply(query()), query(), tcp=True))
    assert not reply.flags & dns.flags.TC
    assert len(reply.answer[0]) == 1000


@given(st.binary(max_size=1400))
def test_any_bytes_are_survived(wire: bytes) -> None:
    read(wire)


@given(st.binary(max_size=300), st.integers(0, 2))
def test_anything_behind_a_query_header_is_survived(body: bytes, additional: int) -> None:
    found = read(ask()[:10] + bytes([0, additional]) + body)
    assert isinstance(found, (Query, Refusal))
    if isinstance(found, Query):
        assert dns.message.from_wire(encode(reply_to(found), found, tcp=False)).id == 0x1234


@given(st.data())
def test_a_damaged_query_is_survived(data: st.DataObject) -> None:
    wire = bytearray(ask(use_edns=0, payload=1232, want_dnssec=True))
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    found = read(bytes(wire))
    if isinstance(found, Query):
        encode(reply_to(found), found, tcp=False)
