"""The DNS server as a guest meets it: real sockets, real upstreams, every answer the guest can get."""

import os
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest
from dns.message import Message
from kernel.test_services_dns_lab import (
    FIRST,
    HOST_ADDRESS,
    SECOND,
    WEB,
    Lab,
    Upstream,
    framed,
    lab,
    reply,
    says,
    take,
)

from aero_l2.services.dns.resolver import ResolverSettings
from aero_l2.services.dns.server import DnsServer

FAST = ResolverSettings(lookup_timeout_s=0.6)
SILENT = Upstream(lambda query: [])


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


def addresses(message: Message) -> list[str]:
    return [rdata.address for rrset in message.answer for rdata in rrset if rrset.rdtype == dns.rdatatype.A]


def web() -> Upstream:
    return Upstream(says(f"60 A {WEB}"), lambda query: reply(query, f"60 A {WEB}").to_wire())


def big_text(query: Message) -> Message:
    return reply(query, *(f'60 TXT "{index:02d}{"x" * 198}"' for index in range(20)))


def truncating() -> Upstream:
    def udp(query: Message) -> list[bytes]:
        return [big_text(query).to_wire(max_size=query.payload or 512, prefer_truncation=True)]

    return Upstream(udp, lambda query: big_text(query).to_wire(max_size=65535))


def test_query_over_udp_and_tcp_is_answered_in_its_own_case(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        over_udp = await ground.ask("WwW.Example.test.")
        query = dns.message.make_query("WwW.Example.test.", "A")
        async with ground.stream() as (reader, writer):
            writer.write(framed(query))
            over_tcp = await take(reader)
        for answer in (over_udp, over_tcp):
            assert answer.question[0].name.to_text() == "WwW.Example.test."
            assert addresses(answer) == [WEB]
        assert query.is_response(over_tcp)
        assert (ground.counts.queries, ground.counts.failures) == (2, 0)

    ground.play({FIRST: web()}, scenario)


def test_every_record_type_is_passed_through(ground: Lab) -> None:
    records = {
        "MX": "10 mail.test.",
        "SRV": "1 2 80 web.test.",
        "TXT": '"hello"',
        "PTR": "web.test.",
        "CAA": '0 issue "ca.test"',
        "HTTPS": '1 . alpn="h2"',
        "TYPE65280": r"\# 3 abcdef",
    }

    def udp(query: Message) -> list[bytes]:
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        return [reply(query, f"60 {kind} {records[kind]}").to_wire()]

    async def scenario(ground: Lab, server: DnsServer) -> None:
        for kind, data in records.items():
            answer = await ground.ask("x.test.", kind)
            assert [rdata.to_text() for rdata in answer.answer[0]] == [data]

    ground.play({FIRST: Upstream(udp)}, scenario)


def test_large_answer_is_truncated_over_udp_and_whole_over_tcp(ground: Lab) -> None:
    upstream = truncating()

    async def scenario(ground: Lab, server: DnsServer) -> None:
        plain = await ground.raw(dns.message.make_query("big.test.", "TXT").to_wire())
        assert len(plain) <= 512
        assert dns.message.from_wire(plain).flags & dns.flags.TC
        edns = await ground.raw(dns.message.make_query("big.test.", "TXT", payload=4096).to_wire())
        assert 512 < len(edns) <= 1232
        async with ground.stream() as (reader, writer):
            writer.write(framed(dns.message.make_query("big.test.", "TXT")))
            answer = await take(reader)
        assert not answer.flags & dns.flags.TC
        assert len(answer.answer[0]) == 20
        assert "tcp" in {way for way, _ in upstream.asked}

    ground.play({FIRST: upstream}, scenario)


def test_denied_and_host_addresses_are_removed(ground: Lab) -> None:
    mixed = Upstream(says("60 A 192.168.0.1", f"60 A {HOST_ADDRESS}", f"60 A {WEB}"))

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert addresses(await ground.ask("mixed.test.")) == [WEB]

    ground.play({FIRST: mixed}, scenario)


def test_aaaa_and_static_names_never_reach_an_upstream(ground: Lab) -> None:
    upstream = web()
    ground.settings = ResolverSettings(static_names={"lab.test": (IPv4Address("10.1.2.3"),)})

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert (await ground.ask("web.test.", "AAAA")).rcode() == dns.rcode.NOERROR
        assert addresses(await ground.ask("LAB.test.")) == ["10.1.2.3"]
        assert upstream.asked == []

    ground.play({FIRST: upstream}, scenario)


@pytest.mark.parametrize("rcode", ["NXDOMAIN", "REFUSED"])
def test_rcode_of_the_upstream_is_passed_and_counted(ground: Lab, rcode: str) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert (await ground.ask("none.test.")).rcode() == dns.rcode.from_text(rcode)
        assert (ground.counts.queries, ground.counts.failures) == (1, 1)

    ground.play({FIRST: Upstream(says(rcode=rcode))}, scenario)


def test_silent_upstream_is_servfail_within_the_timeout(ground: Lab) -> None:
    ground.settings = FAST

    async def scenario(ground: Lab, server: DnsServer) -> None:
        start = time.monotonic()
        assert (await ground.ask("x.test.")).rcode() == dns.rcode.SERVFAIL
        assert 0.5 < time.monotonic() - start < 1.2

    ground.play({FIRST: SILENT}, scenario)


@pytest.mark.parametrize("first", [SILENT, Upstream(says(rcode="SERVFAIL"))], ids=["silent", "servfail"])
def test_next_upstream_answers_for_a_bad_first_one(ground: Lab, first: Upstream) -> None:
    ground.settings = FAST

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert addresses(await ground.ask("x.test.")) == [WEB]

    ground.play({FIRST: first, SECOND: web()}, scenario)


def test_dead_upstream_costs_no_timeout(ground: Lab) -> None:
    ground.resolv_conf = f"nameserver {SECOND}\nnameserver {FIRST}\n"

    async def scenario(ground: Lab, server: DnsServer) -> None:
        start = time.monotonic()
        assert addresses(await ground.ask("x.test.")) == [WEB]
        assert time.monotonic() - start < 0.3

    ground.play({FIRST: web()}, scenario)


def test_slow_upstream_is_not_cut_short_by_the_next(ground: Lab) -> None:
    slow = Upstream(says(f"60 A {WEB}"), delay_s=0.45)
    ground.settings = FAST

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert addresses(await ground.ask("x.test.")) == [WEB]

    ground.play({FIRST: slow, SECOND: SILENT}, scenario)


def lies(query: Message) -> list[bytes]:
    """What an attacker who does not see the query sends: wrong id, wrong name, no answer, not DNS at all."""
    wrong_id = reply(query, "60 A 6.6.6.6")
    wrong_id.id ^= 1
    other = dns.message.make_query("other.test.", "A", id=query.id)
    no_response = dns.message.make_query(query.question[0].name, "A", id=query.id)
    return [
        wrong_id.to_wire(),
        reply(other, "60 A 6.6.6.6").to_wire(),
        no_response.to_wire(),
        b"",
        os.urandom(40),
        reply(query, "60 A 6.6.6.6").to_wire()[:-3],
    ]


def test_spoofed_answers_are_passed_over(ground: Lab) -> None:
    upstream = Upstream(lambda query: [*lies(query), reply(query, f"60 A {WEB}").to_wire()])

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert addresses(await ground.ask("x.test.")) == [WEB]

    ground.play({FIRST: upstream}, scenario)


def test_answer_from_another_port_is_not_accepted(ground: Lab) -> None:
    ground.settings = FAST

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert (await ground.ask("x.test.")).rcode() == dns.rcode.SERVFAIL

    ground.play({FIRST: Upstream(says("60 A 6.6.6.6"), from_elsewhere=True)}, scenario)


def test_flood_of_wrong_answers_makes_the_question_go_over_tcp(ground: Lab) -> None:
    upstream = Upstream(lambda query: lies(query) * 30, lambda query: reply(query, f"60 A {WEB}").to_wire())

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert addresses(await ground.ask("x.test.")) == [WEB]

    ground.play({FIRST: upstream}, scenario)


@pytest.mark.parametrize(("number", "rcode"), [(50, dns.rcode.NOERROR), (200, dns.rcode.SERVFAIL)])
def test_answer_that_would_hold_up_every_tunnel_is_not_read(ground: Lab, number: int, rcode: int) -> None:
    many = [f"60 A 93.184.{index // 250}.{index % 250}" for index in range(number)]
    upstream = Upstream(
        lambda query: [reply(query, *many).to_wire(max_size=512, prefer_truncation=True)],
        lambda query: reply(query, *many).to_wire(max_size=65535),
    )

    async def scenario(ground: Lab, server: DnsServer) -> None:
        async with ground.stream() as (reader, writer):
            writer.write(framed(dns.message.make_query("x.test.", "A")))
            answer = await take(reader)
        assert answer.rcode() == rcode
        assert len(addresses(answer)) == (number if rcode == dns.rcode.NOERROR else 0)

    ground.play({FIRST: upstream}, scenario)


@pytest.mark.parametrize("way", ["udp", "tcp"])
def test_answer_crafted_to_be_slow_is_servfail_at_once(ground: Lab, way: str) -> None:
    def crafted(query: Message) -> bytes:
        strings = 3000 if way == "udp" else 65_000
        head = reply(query).to_wire()
        record = b"\xc0\x0c" + struct.pack("!HHIH", 16, 1, 60, strings) + bytes(strings)
        return head[:6] + b"\x00\x01" + head[8:] + record

    def cut(query: Message) -> bytes:
        answer = reply(query)
        answer.flags |= dns.flags.TC
        return answer.to_wire()

    upstream = Upstream(lambda query: [crafted(query) if way == "udp" else cut(query)], crafted)

    async def scenario(ground: Lab, server: DnsServer) -> None:
        start = time.monotonic()
        assert (await ground.ask("x.test.", "TXT")).rcode() == dns.rcode.SERVFAIL
        assert time.monotonic() - start < 0.5

    ground.play({FIRST: upstream}, scenario)


def test_missing_upstream_is_servfail(ground: Lab) -> None:
    ground.resolv_conf = "# none\n"

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert (await ground.ask("x.test.")).rcode() == dns.rcode.SERVFAIL

    ground.play({}, scenario)
