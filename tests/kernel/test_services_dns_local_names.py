"""What a guest asks about the operator's own network is answered here and never leaves."""

from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from kernel.test_services_dns_lab import FIRST, WEB, Lab, Upstream, framed, lab, reply, says, take

from aero_l2.services.dns.resolver import ResolverSettings
from aero_l2.services.dns.server import DnsServer

LOCAL = [
    ("localhost.", "A"),
    ("app.localhost.", "AAAA"),
    ("printer.local.", "A"),
    ("vault.INTERNAL.", "A"),
    ("nas.home.arpa.", "TXT"),
    ("abc.onion.", "A"),
    ("intranet.", "A"),
    ("1.0.168.192.in-addr.arpa.", "PTR"),
    ("1.1.64.100.in-addr.arpa.", "PTR"),
    ("1.0.0.0.d.f.ip6.arpa.", "PTR"),
]


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


def test_local_names_are_nxdomain_counted_as_denied_and_never_asked_for(ground: Lab) -> None:
    upstream = Upstream(says(f"60 A {WEB}"))

    async def scenario(ground: Lab, server: DnsServer) -> None:
        for name, rdtype in LOCAL:
            answer = await ground.ask(name, rdtype)
            assert (answer.rcode(), len(answer.authority)) == (dns.rcode.NXDOMAIN, 1)
        async with ground.stream() as (reader, writer):
            writer.write(framed(dns.message.make_query("printer.local.", "A")))
            assert (await take(reader)).rcode() == dns.rcode.NXDOMAIN
        assert (ground.counts.denied, ground.counts.failures) == (len(LOCAL) + 1, 0)
        assert ground.counts.queries == ground.counts.denied
        assert upstream.asked == []

    ground.play({FIRST: upstream}, scenario)


def test_local_names_are_asked_for_where_private_names_are_allowed(ground: Lab) -> None:
    def udp(query: dns.message.Message) -> list[bytes]:
        return [reply(query, '60 TXT "x"').to_wire()]

    upstream = Upstream(udp)
    ground.settings = ResolverSettings(private_names=True)

    async def scenario(ground: Lab, server: DnsServer) -> None:
        for name, _ in LOCAL:
            assert (await ground.ask(name, "TXT")).rcode() == dns.rcode.NOERROR
        assert len(upstream.asked) == len(LOCAL)
        assert ground.counts.denied == 0

    ground.play({FIRST: upstream}, scenario)


def test_search_list_of_the_host_is_never_applied(ground: Lab) -> None:
    upstream = Upstream(says(rcode="NXDOMAIN"))
    ground.resolv_conf = f"search corp.test\noptions ndots:5\nnameserver {FIRST}\n"

    async def scenario(ground: Lab, server: DnsServer) -> None:
        for name in ("intranet.", "www.shop."):
            assert (await ground.ask(name)).rcode() == dns.rcode.NXDOMAIN
        assert [query.question[0].name.to_text() for _, query in upstream.asked] == ["www.shop."]

    ground.play({FIRST: upstream}, scenario)


def test_static_names_are_answered_although_they_are_local(ground: Lab) -> None:
    names = {"nas.local": (IPv4Address("10.0.2.2"),), "intranet": (IPv4Address("10.0.2.2"),)}
    ground.settings = ResolverSettings(static_names=names)

    async def scenario(ground: Lab, server: DnsServer) -> None:
        for name in ("nas.local.", "INTRANET."):
            assert (await ground.ask(name)).answer[0][0].to_text() == "10.0.2.2"
            assert (await ground.ask(name, "AAAA")).rcode() == dns.rcode.NOERROR
        assert (await ground.ask("other.local.")).rcode() == dns.rcode.NXDOMAIN
        assert (ground.counts.denied, ground.counts.failures) == (1, 0)

    ground.play({}, scenario)
