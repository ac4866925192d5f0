"""The cache as guests meet it: what the upstream is asked again, and what an answer looks like by then."""

import asyncio
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from dns.message import Message
from kernel.test_services_dns_lab import FIRST, WEB, Lab, Upstream, framed, lab, reply, says, take

from aero_l2.services.dns.server import DnsServer


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


def nothing(rcode: str, ttl: int) -> Upstream:
    def udp(query: Message) -> list[bytes]:
        answer = reply(query, rcode=rcode)
        soa = f"ns.test. admin.test. 1 2 3 4 {ttl}"
        answer.authority = [dns.rrset.from_text("test.", ttl, "IN", "SOA", soa)]
        return [answer.to_wire()]

    return Upstream(udp)


def test_upstream_is_asked_once_over_udp_and_tcp_and_in_any_case(ground: Lab) -> None:
    upstream = Upstream(says(f"60 A {WEB}"))

    async def scenario(ground: Lab, server: DnsServer) -> None:
        for name in ("web.test.", "WEB.test.", "wEb.TEST."):
            answer = await ground.ask(name)
            assert answer.question[0].name.to_text() == name
            assert answer.answer[0][0].to_text() == WEB
        async with ground.stream() as (reader, writer):
            writer.write(framed(dns.message.make_query("web.test.", "A")))
            assert (await take(reader)).answer[0][0].to_text() == WEB
        assert len(upstream.asked) == 1
        assert (ground.counts.queries, ground.counts.failures) == (4, 0)

    ground.play({FIRST: upstream}, scenario)


@pytest.mark.slow
def test_ttl_counts_down_and_the_upstream_is_asked_when_it_is_over(ground: Lab) -> None:
    upstream = Upstream(says(f"2 A {WEB}"))

    async def scenario(ground: Lab, server: DnsServer) -> None:
        seen = []
        while len(upstream.asked) < 2:
            seen.append((await ground.ask("web.test.")).answer[0].ttl)
            await asyncio.sleep(0.05)
        assert sorted(seen[:-1], reverse=True) == seen[:-1]
        assert set(seen) == {1, 2}

    ground.play({FIRST: upstream}, scenario)


@pytest.mark.parametrize(("rcode", "failures"), [("NXDOMAIN", 2), ("NOERROR", 0)])
def test_denials_are_kept_with_their_soa(ground: Lab, rcode: str, failures: int) -> None:
    upstream = nothing(rcode, 30)

    async def scenario(ground: Lab, server: DnsServer) -> None:
        for _ in range(2):
            answer = await ground.ask("none.test.", "TXT")
            assert (answer.rcode(), answer.authority[0].rdtype) == (
                dns.rcode.from_text(rcode),
                dns.rdatatype.SOA,
            )
            assert 28 <= answer.authority[0].ttl <= 30
        assert len(upstream.asked) == 1
        assert ground.counts.failures == failures

    ground.play({FIRST: upstream}, scenario)


@pytest.mark.parametrize(
    "upstream",
    [
        Upstream(says(f"0 A {WEB}")),
        Upstream(says(rcode="SERVFAIL")),
        Upstream(says(rcode="NXDOMAIN")),
        nothing("NXDOMAIN", 0),
    ],
    ids=["ttl-0", "servfail", "no-soa", "soa-0"],
)
def test_what_does_not_hold_is_asked_again(ground: Lab, upstream: Upstream) -> None:
    async def scenario(ground: Lab, server: DnsServer) -> None:
        upstream.asked.clear()
        for _ in range(2):
            await ground.ask("web.test.")
        assert len(upstream.asked) == 2

    ground.play({FIRST: upstream}, scenario)


def test_name_that_turns_private_is_filtered_whatever_it_said_before(ground: Lab) -> None:
    answers = [["0 A 93.184.216.34"], ["60 A 192.168.0.1", "60 A 169.254.169.254"]]

    def udp(query: Message) -> list[bytes]:
        return [reply(query, *(answers.pop(0) if len(answers) > 1 else answers[0])).to_wire()]

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert len((await ground.ask("rebind.test.")).answer) == 1
        for _ in range(3):  # the second and third of them from the cache
            answer = await ground.ask("rebind.test.")
            assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])

    ground.play({FIRST: Upstream(udp)}, scenario)


def test_address_that_becomes_the_hosts_own_is_left_out_of_a_kept_answer(ground: Lab) -> None:
    own: set[IPv4Address] = set()
    ground.host_addresses = lambda: frozenset(own)

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert len((await ground.ask("web.test.")).answer) == 1
        own.add(IPv4Address(WEB))
        assert (await ground.ask("web.test.")).answer == []

    ground.play({FIRST: Upstream(says(f"60 A {WEB}"))}, scenario)
