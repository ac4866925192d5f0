"""Upstreams and guests that mean harm, and what the other gets of it."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from dns.message import Message
from kernel.test_services_dns_lab import FIRST, WEB, Lab, Upstream, framed, lab, reply, says, take

from aero_l2.services.dns.resolver import ResolverSettings
from aero_l2.services.dns.server import DnsServer

LONGEST = ".".join(["a" * 63] * 3 + ["b" * 61]) + "."  # 255 bytes on the wire
MOST_LABELS = ".".join(["a"] * 127) + "."  # 255 bytes too


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        made.settings = ResolverSettings(lookup_timeout_s=0.6)
        yield made


def with_record(query: Message, record: bytes) -> bytes:
    """An answer with one record as it is, good or not."""
    head = reply(query).to_wire()
    return head[:6] + b"\x00\x01" + head[8:] + record


def self_pointer(query: Message) -> bytes:
    at = len(reply(query).to_wire())
    return with_record(query, struct.pack("!HHHIH", 0xC000 | at, 1, 1, 60, 4) + b"\x06" * 4)


def pointers_in_a_ring(query: Message) -> bytes:
    at = len(reply(query).to_wire())
    ring = struct.pack("!HH", 0xC000 | at + 14, 0xC000 | at + 12)
    return with_record(query, b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 4) + ring)


def forward_pointer(query: Message) -> bytes:
    return with_record(query, struct.pack("!HHHIH", 0xFFFF, 1, 1, 60, 4) + b"\x06" * 4)


def name_of_256_bytes(query: Message) -> bytes:
    name = b"\x3f" + b"a" * 63
    return with_record(query, name * 4 + b"\x00" + struct.pack("!HHIH", 1, 1, 60, 4) + b"\x06" * 4)


def data_beyond_the_end(query: Message) -> bytes:
    return with_record(query, b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 400) + b"\x06" * 4)


def more_records_than_there_are(query: Message) -> bytes:
    wire = reply(query, f"60 A {WEB}").to_wire()
    return wire[:6] + b"\xff\xff" + wire[8:]


@pytest.mark.parametrize(
    "broken",
    [
        self_pointer,
        pointers_in_a_ring,
        forward_pointer,
        name_of_256_bytes,
        data_beyond_the_end,
        more_records_than_there_are,
    ],
)
def test_broken_answer_is_passed_over_and_the_good_one_taken(ground: Lab, broken: object) -> None:
    assert callable(broken)
    upstream = Upstream(lambda query: [broken(query), reply(query, f"60 A {WEB}").to_wire()])

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert (await ground.ask("x.test.")).answer[0][0].to_text() == WEB

    ground.play({FIRST: upstream}, scenario)


@pytest.mark.parametrize("broken", [self_pointer, pointers_in_a_ring, name_of_256_bytes])
def test_broken_answer_alone_is_servfail_in_time(ground: Lab, broken: object) -> None:
    assert callable(broken)
    upstream = Upstream(lambda query: [broken(query)], broken)

    async def scenario(ground: Lab, server: DnsServer) -> None:
        start = time.monotonic()
        assert (await ground.ask("x.test.")).rcode() == dns.rcode.SERVFAIL
        assert time.monotonic() - start < 1.2

    ground.play({FIRST: upstream}, scenario)


def test_longest_name_is_asked_for_and_answered(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert len(dns.name.from_text(LONGEST).to_wire() or b"") == 255
        for _ in range(2):
            answer = await ground.ask(LONGEST)
            assert answer.answer[0].name.to_text() == LONGEST
            assert answer.answer[0][0].to_text() == WEB

    ground.play({FIRST: Upstream(says(f"60 A {WEB}"))}, scenario)


def test_name_of_most_labels_is_answered_at_once_whatever_with(ground: Lab) -> None:
    """Reading such an answer takes milliseconds, so it is not read."""
    upstream = Upstream(says(f"60 A {WEB}"), lambda query: reply(query, f"60 A {WEB}").to_wire())

    async def scenario(ground: Lab, server: DnsServer) -> None:
        start = time.monotonic()
        assert (await ground.ask(MOST_LABELS)).rcode() == dns.rcode.SERVFAIL
        assert (await ground.ask(MOST_LABELS[6:] + "local.")).rcode() == dns.rcode.NXDOMAIN
        assert time.monotonic() - start < 0.5

    ground.play({FIRST: upstream}, scenario)


def test_upstream_that_changes_the_case_is_believed_and_the_guest_gets_its_own(ground: Lab) -> None:
    def shouts(query: Message) -> list[bytes]:
        answer = reply(query, f"60 A {WEB}")
        loud = dns.name.from_text(query.question[0].name.to_text().upper())
        answer.question = [dns.rrset.RRset(loud, query.question[0].rdclass, query.question[0].rdtype)]
        return [answer.to_wire()]

    async def scenario(ground: Lab, server: DnsServer) -> None:
        for name in ("wWw.ExAmPlE.tEsT.", "www.example.test."):
            assert (await ground.ask(name)).question[0].name.to_text() == name

    ground.play({FIRST: Upstream(shouts)}, scenario)


def lying_about_the_question(query: Message) -> list[bytes]:
    """The right id from the right place, but for another name, another type, or no question at all."""
    name, rdtype = query.question[0].name, query.question[0].rdtype
    other_name = reply(dns.message.make_query("other.test.", rdtype, id=query.id), "60 A 6.6.6.6")
    other_type = reply(dns.message.make_query(name, "TXT", id=query.id), "60 A 6.6.6.6")
    no_question = reply(query, "60 A 6.6.6.6")
    no_question.question = []
    return [answer.to_wire() for answer in (other_name, other_type, no_question)]


def test_answers_to_another_question_are_neither_believed_nor_kept(ground: Lab) -> None:
    upstream = Upstream(
        lambda query: [*lying_about_the_question(query), reply(query, f"60 A {WEB}").to_wire()]
    )

    async def scenario(ground: Lab, server: DnsServer) -> None:
        for name in ("x.test.", "y.test.", "x.test."):
            assert (await ground.ask(name)).answer[0][0].to_text() == WEB

    ground.play({FIRST: upstream}, scenario)


def test_records_of_other_names_in_an_answer_are_not_kept_for_these_names(ground: Lab) -> None:
    def poisons(query: Message) -> list[bytes]:
        answer = reply(query, f"60 A {WEB}")
        if query.question[0].name.to_text() == "x.test.":
            answer.additional = [dns.rrset.from_text("bank.test.", 60, "IN", "A", "6.6.6.6")]
        return [answer.to_wire()]

    async def scenario(ground: Lab, server: DnsServer) -> None:
        await ground.ask("x.test.")
        assert (await ground.ask("bank.test.")).answer[0][0].to_text() == WEB

    ground.play({FIRST: Upstream(poisons)}, scenario)


@pytest.mark.parametrize("rdtype", ["AXFR", "IXFR"])
def test_zone_transfers_are_refused_and_not_asked_for(ground: Lab, rdtype: str) -> None:
    upstream = Upstream(says(f"60 A {WEB}"))

    async def scenario(ground: Lab, server: DnsServer) -> None:
        query = dns.message.make_query("example.test.", "A")
        query.question = [dns.rrset.RRset(query.question[0].name, 1, dns.rdatatype.from_text(rdtype))]  # type: ignore[arg-type]
        over_udp = dns.message.from_wire(await ground.raw(query.to_wire()))
        async with ground.stream() as (reader, writer):
            writer.write(framed(query))
            over_tcp = await take(reader)
        assert [over_udp.rcode(), over_tcp.rcode()] == [dns.rcode.REFUSED] * 2
        assert upstream.asked == []
        assert (ground.counts.queries, ground.counts.failures) == (2, 2)

    ground.play({FIRST: upstream}, scenario)


def test_any_is_one_question_like_others_and_no_amplifier(ground: Lab) -> None:
    records = [f'60 TXT "{index:02d}{"x" * 198}"' for index in range(20)]
    upstream = Upstream(
        lambda query: [reply(query, *records).to_wire(max_size=1232, prefer_truncation=True)],
        lambda query: reply(query, f"60 A {WEB}", "60 A 192.168.0.1", *records).to_wire(max_size=65535),
    )

    async def scenario(ground: Lab, server: DnsServer) -> None:
        plain = await ground.raw(dns.message.make_query("any.test.", "ANY").to_wire())
        assert len(plain) <= 512
        async with ground.stream() as (reader, writer):
            writer.write(framed(dns.message.make_query("any.test.", "ANY")))
            answer = await take(reader)
        kept = {rrset.rdtype: len(rrset) for rrset in answer.answer}
        assert kept == {dns.rdatatype.A: 1, dns.rdatatype.TXT: 20}

    ground.play({FIRST: upstream}, scenario)


def test_counters_tell_what_was_sent(ground: Lab) -> None:
    def udp(query: Message) -> list[bytes]:
        first = query.question[0].name.labels[0].decode()
        return [] if first == "silent" else [reply(query, rcode=first.upper()).to_wire()]

    async def scenario(ground: Lab, server: DnsServer) -> None:
        for name in ("noerror.test.", "nxdomain.test.", "servfail.test.", "silent.test.", "x.local."):
            await ground.ask(name)
        await ground.raw(b"\x00\x01")
        assert (ground.counts.queries, ground.counts.failures, ground.counts.denied) == (6, 4, 1)

    ground.play({FIRST: Upstream(udp)}, scenario)
