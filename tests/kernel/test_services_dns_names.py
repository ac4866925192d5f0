"""Lists of names and shared questions on a server of real sockets, with scripted upstreams."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path

import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from dns.message import Message
from kernel.test_services_dns_lab import FIRST, WEB, Lab, Upstream, framed, lab, reply, says, take
from support.wait import until

from aero_l2.policy.domains import DomainLists
from aero_l2.services.dns.openings import OpenedAddresses
from aero_l2.services.dns.resolver import ResolverSettings
from aero_l2.services.dns.server import DnsServer

STATIC = IPv4Address("10.9.9.9")


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        made.settings = ResolverSettings(
            lookup_timeout_s=2.0,
            static_names={"static.lan": (STATIC,)},
            domains=DomainLists(("example.com", "corp.internal"), ("bad.example.com",)),
        )
        yield made


class Gate:
    """Stands where netd is asked to open addresses."""

    def __init__(self) -> None:
        self.works = True
        self.asked: list[dict[str, int]] = []
        self.free = asyncio.Event()
        self.free.set()

    async def open(self, wanted: Sequence[tuple[IPv4Address, int]]) -> bool:
        self.asked.append({str(address): seconds for address, seconds in wanted})
        await self.free.wait()
        return self.works


@pytest.fixture
def gate(ground: Lab) -> Gate:
    made = Gate()
    ground.opened = lambda: OpenedAddresses(made.open)
    return made


def test_denied_names_are_nxdomain_not_asked_for_and_counted_as_denied(ground: Lab) -> None:
    upstream = Upstream(says(f"60 A {WEB}"))

    async def scenario(ground: Lab, server: DnsServer) -> None:
        denied = [
            "example.org.",
            "x.bad.EXAMPLE.com.",
            "com.",
            ".",
            "printer.corp.internal.",
            "notexample.com.",
        ]
        for name in denied:
            for kind in ("A", "AAAA", "TXT", "ANY"):
                answer = await ground.ask(name, kind)
                assert answer.rcode() == dns.rcode.NXDOMAIN, name
                assert answer.authority[0].rdtype == dns.rdatatype.SOA
        sent = 4 * len(denied)
        assert upstream.asked == []
        assert (ground.counts.queries, ground.counts.failures, ground.counts.denied) == (sent, 0, sent)

    ground.play({FIRST: upstream}, scenario)


def test_allowed_and_static_names_are_answered(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert (await ground.ask("wWw.ExAmple.com.")).answer[0][0].to_text() == WEB
        assert (await ground.ask("static.lan.")).answer[0][0].to_text() == str(STATIC)
        assert ground.counts.denied == 0

    ground.play({FIRST: Upstream(says(f"60 A {WEB}"))}, scenario)


def test_static_name_is_ahead_of_a_block_list(ground: Lab) -> None:
    ground.settings = ResolverSettings(
        static_names={"a.bad.test": (STATIC,)}, domains=DomainLists(blocked=("bad.test",))
    )

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert (await ground.ask("a.bad.test.")).answer[0][0].to_text() == str(STATIC)
        assert (await ground.ask("b.bad.test.")).rcode() == dns.rcode.NXDOMAIN

    ground.play({FIRST: Upstream(says(f"60 A {WEB}"))}, scenario)


def test_addresses_are_opened_before_the_guest_gets_them_kept_answers_and_static_names_too(
    ground: Lab, gate: Gate
) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        gate.free.clear()
        waiting = asyncio.ensure_future(ground.ask("www.example.com."))
        await until(lambda: gate.asked == [{WEB: 66}], "netd is asked")
        assert not waiting.done()
        gate.free.set()
        assert (await waiting).answer[0][0].to_text() == WEB
        await ground.ask("www.example.com.")
        assert gate.asked == [{WEB: 66}]
        for _ in range(3):
            await ground.ask("static.lan.")
        assert gate.asked == [{WEB: 66}, {str(STATIC): 66}]
        assert (await ground.ask("www.example.com.", "AAAA")).answer == []
        assert len(gate.asked) == 2

    ground.play({FIRST: Upstream(says(f"60 A {WEB}"))}, scenario)


def test_answer_whose_addresses_cannot_be_opened_is_servfail_and_a_failure(ground: Lab, gate: Gate) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        gate.works = False
        for name in ("www.example.com.", "www.example.com.", "static.lan."):
            assert (await ground.ask(name)).rcode() == dns.rcode.SERVFAIL
        assert (ground.counts.queries, ground.counts.failures, ground.counts.denied) == (3, 3, 0)
        gate.works = True
        assert (await ground.ask("www.example.com.")).answer[0][0].to_text() == WEB

    ground.play({FIRST: Upstream(says(f"60 A {WEB}"))}, scenario)


def test_answers_that_wait_to_be_opened_are_limited_and_end_with_the_tunnel(ground: Lab, gate: Gate) -> None:
    ground.max_pending = 4

    async def scenario(ground: Lab, server: DnsServer) -> None:
        gate.free.clear()
        waiting = [asyncio.ensure_future(ground.ask("static.lan.")) for _ in range(4)]
        await until(lambda: server.pending == 4, "four wait")
        assert (await ground.ask("static.lan.")).rcode() == dns.rcode.SERVFAIL
        await server.close()
        assert server.pending == 0
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    ground.play({}, scenario)


def test_answer_with_more_addresses_than_a_tunnel_may_open_is_no_answer(ground: Lab, gate: Gate) -> None:
    many = [f"60 A 93.184.{n // 250}.{n % 250}" for n in range(300)]
    upstream = Upstream(says(*many), lambda query: reply(query, *many).to_wire(max_size=65535))

    async def scenario(ground: Lab, server: DnsServer) -> None:
        async with ground.stream() as (reader, writer):
            writer.write(framed(dns.message.make_query("www.example.com.", "A")))
            assert (await take(reader)).rcode() == dns.rcode.SERVFAIL
        assert gate.asked == []

    ground.play({FIRST: upstream}, scenario)


def test_same_question_in_any_case_is_asked_once_and_each_gets_its_own(ground: Lab) -> None:
    upstream = Upstream(says(f"60 A {WEB}"), delay_s=0.3)

    async def scenario(ground: Lab, server: DnsServer) -> None:
        names = ["www.example.com.", "WWW.example.com.", "wWw.ExAmPlE.cOm."] * 3
        answers = await asyncio.gather(*(ground.ask(name) for name in names))
        assert [answer.question[0].name.to_text() for answer in answers] == names
        assert [answer.answer[0].name.to_text() for answer in answers] == names
        assert len(upstream.asked) == 1
        assert ground.counts.queries == 9

    ground.play({FIRST: upstream}, scenario)


def test_questions_that_differ_in_type_or_flags_are_asked_each(ground: Lab) -> None:
    upstream = Upstream(lambda query: [reply(query).to_wire()], delay_s=0.3)

    async def scenario(ground: Lab, server: DnsServer) -> None:
        await asyncio.gather(
            *(ground.ask("www.example.com.", kind) for kind in ("A", "TXT", "A")),
            *(ground.ask("www.example.com.", "A", want_dnssec=True) for _ in range(2)),
            ground.ask("mail.example.com.", "A"),
        )
        assert len(upstream.asked) == 4

    ground.play({FIRST: upstream}, scenario)


def test_shared_question_that_fails_fails_for_all_in_time(ground: Lab) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        start = time.monotonic()
        answers = await asyncio.gather(*(ground.ask("www.example.com.") for _ in range(5)))
        assert {answer.rcode() for answer in answers} == {dns.rcode.SERVFAIL}
        assert time.monotonic() - start < 4
        assert ground.counts.failures == 5

    ground.settings = ResolverSettings(lookup_timeout_s=0.4)
    ground.play({FIRST: Upstream(lambda query: [])}, scenario)


def test_flood_of_wrong_answers_brings_nothing_within_reach(ground: Lab, gate: Gate) -> None:
    """Spoofed answers say an address of the attacker's: with a wrong id, then for another name."""

    def spoofed(query: Message) -> list[bytes]:
        wrong = reply(query, "60 A 6.6.6.6")
        wrong.id ^= 1
        other = reply(dns.message.make_query("other.example.com.", "A", id=query.id), "60 A 6.6.6.6")
        return [*([wrong.to_wire()] * 20), other.to_wire(), reply(query, f"60 A {WEB}").to_wire()]

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert (await ground.ask("www.example.com.")).answer[0][0].to_text() == WEB
        assert gate.asked == [{WEB: 66}]

    ground.play({FIRST: Upstream(spoofed)}, scenario)
