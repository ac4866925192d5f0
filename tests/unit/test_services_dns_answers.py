"""What becomes of an upstream's answer on its way to the guest."""

from ipaddress import IPv4Address
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.policy.egress import EgressPolicy
from aero_l2.services.dns.answers import AnswerRules, relay, static
from aero_l2.services.dns.flights import Flights
from aero_l2.services.dns.message import Query, reply_to
from aero_l2.services.dns.nameservers import NoUpstream, read_nameservers
from aero_l2.services.dns.resolver import Resolver, ResolverSettings
from aero_l2.services.dns.upstream import request_for

POLICY = EgressPolicy()
RULES = AnswerRules(lambda address: POLICY.denies_address(address, frozenset()) is not None, max_ttl=300)


def query(name: str = "web.Test.", rdtype: str = "A", **fields: object) -> Query:
    kind = dns.rdatatype.from_text(rdtype)
    return Query(9, dns.name.from_text(name), kind, **fields)  # type: ignore[arg-type]


def upstream(
    *records: str, flags: str = "QR RD RA", rcode: str = "NOERROR", extra: str = ""
) -> dns.message.Message:
    text = f"id 5\nopcode QUERY\nrcode {rcode}\nflags {flags}\n;QUESTION\nweb.test. IN A\n;ANSWER\n"
    return dns.message.from_text(text + "\n".join(records) + "\n;AUTHORITY\n;ADDITIONAL\n" + extra + "\n")


def texts(rrsets: list[dns.rrset.RRset]) -> list[str]:
    return [line for rrset in rrsets for line in rrset.to_text().split("\n")]


def test_answer_carries_the_guests_id_and_question() -> None:
    reply = relay(query(), upstream("web.test. 60 IN A 93.184.216.34"), RULES)
    assert (reply.id, reply.question[0].name.to_text()) == (9, "web.Test.")
    assert texts(reply.answer) == ["web.test. 60 IN A 93.184.216.34"]


@pytest.mark.parametrize(("given_ttl", "ttl"), [(0, 1), (1, 1), (299, 299), (300, 300), (86400, 300)])
def test_ttl_of_an_address_and_its_alias_is_bounded(given_ttl: int, ttl: int) -> None:
    found = upstream(f"web.test. {given_ttl} IN CNAME a.test.", f"a.test. {given_ttl} IN A 93.184.216.34")
    assert texts(relay(query(), found, RULES).answer) == [
        f"web.test. {ttl} IN CNAME a.test.",
        f"a.test. {ttl} IN A 93.184.216.34",
    ]


def test_ttl_of_other_records_is_passed() -> None:
    found = upstream('web.test. 86400 IN TXT "x"')
    assert texts(relay(query(), found, RULES).answer) == ['web.test. 86400 IN TXT "x"']


def test_denied_addresses_are_left_out_everywhere() -> None:
    found = upstream(
        "web.test. 60 IN A 192.168.1.1",
        "web.test. 60 IN A 93.184.216.34",
        "web.test. 60 IN A 169.254.169.254",
        extra="ns.test. 60 IN A 127.0.0.1\nns2.test. 60 IN A 93.184.216.35",
    )
    reply = relay(query(), found, RULES)
    assert texts(reply.answer) == ["web.test. 60 IN A 93.184.216.34"]
    assert texts(reply.additional) == ["ns2.test. 60 IN A 93.184.216.35"]


def test_answer_of_denied_addresses_only_is_noerror_and_empty() -> None:
    reply = relay(query(), upstream("web.test. 60 IN A 10.0.0.1"), RULES)
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])


def test_ipv6_addresses_are_left_out() -> None:
    found = upstream("web.test. 60 IN A 93.184.216.34", "web.test. 60 IN AAAA 2606:2800:220:1::34")
    assert texts(relay(query(rdtype="ANY"), found, RULES).answer) == ["web.test. 60 IN A 93.184.216.34"]


@pytest.mark.parametrize("rcode", ["NXDOMAIN", "SERVFAIL", "REFUSED", "YXDOMAIN"])
def test_rcode_is_passed(rcode: str) -> None:
    assert relay(query(), upstream(rcode=rcode), RULES).rcode() == dns.rcode.from_text(rcode)


def test_authenticated_data_is_passed_to_who_asks_for_it() -> None:
    found = upstream("web.test. 60 IN A 93.184.216.34", flags="QR RD RA AD")
    assert relay(query(edns=True, dnssec_ok=True), found, RULES).flags & dns.flags.AD
    assert not relay(query(), found, RULES).flags & dns.flags.AD


def test_authenticated_data_is_not_claimed_for_a_changed_answer() -> None:
    found = upstream("web.test. 60 IN A 10.0.0.1", "web.test. 60 IN A 8.8.8.8", flags="QR RD RA AD")
    assert not relay(query(edns=True, dnssec_ok=True), found, RULES).flags & dns.flags.AD


@given(
    st.lists(st.integers(0, 0xFFFFFFFF).map(IPv4Address), max_size=8, unique=True), st.integers(0, 2**31 - 1)
)
def test_a_guest_never_learns_a_denied_address(addresses: list[IPv4Address], ttl: int) -> None:
    found = upstream(*(f"web.test. {ttl} IN A {address}" for address in addresses))
    kept = [rdata.address for rrset in relay(query(), found, RULES).answer for rdata in rrset]
    assert kept == [str(address) for address in addresses if not RULES.denies(address)]


def test_static_name_is_answered_as_given() -> None:
    reply = static(query(), (IPv4Address("10.9.9.9"), IPv4Address("127.0.0.1")), 60)
    assert texts(reply.answer) == ["web.Test. 60 IN A 10.9.9.9", "web.Test. 60 IN A 127.0.0.1"]
    assert static(query(rdtype="AAAA"), (IPv4Address("10.9.9.9"),), 60).answer == []


def test_static_names_are_found_in_any_case_and_without_upstream(tmp_path: Path) -> None:
    names = {" Lab.Test.": (IPv4Address("10.9.9.9"),)}
    resolver = Resolver(ResolverSettings(static_names=names, default_ttl=900), tmp_path / "none")
    reply = resolver.at_once(query("lAB.test."))
    assert reply is not None
    assert texts(reply.answer) == ["lAB.test. 300 IN A 10.9.9.9"]
    assert resolver.at_once(query("x.lab.test.")) is None


def test_static_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a domain name"):
        Resolver(ResolverSettings(static_names={"a..b": ()}), tmp_path / "none")


def test_aaaa_is_noerror_and_empty_without_upstream(tmp_path: Path) -> None:
    reply = Resolver(resolv_conf=tmp_path / "none").at_once(query(rdtype="AAAA"))
    assert reply is not None
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])


async def test_without_upstream_every_lookup_is_servfail(tmp_path: Path) -> None:
    resolver = Resolver(resolv_conf=tmp_path / "none")
    reply = await resolver.resolve(query(), lambda _: False, resolver.new_cache(), Flights())
    assert reply.rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"search example.test\n",
        b"nameserver\n",
        b"nameserver not-an-address\n",
        b"nameserver https://dns.test/dns-query\n",
        b"\xff\xfe\n",
        b"search a..b\nnameserver 127.0.0.53\n",
    ],
)
def test_unusable_resolv_conf_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "resolv.conf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NoUpstream, match=r"resolv\.conf"):
        read_nameservers(path)


def test_resolv_conf_keeps_the_order_of_its_servers(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# two\nnameserver 127.0.0.54\noptions edns0\nnameserver ::1\nsearch lab.test\n")
    assert [str(server) for server in read_nameservers(path)] == ["Do53:127.0.0.54@53", "Do53:::1@53"]


def test_upstream_is_asked_with_an_id_of_our_own_and_recursion() -> None:
    asked = query(flags=int(dns.flags.CD), edns=True, payload=4096, dnssec_ok=True)
    requests = [request_for(asked) for _ in range(8)]
    assert len({request.id for request in requests}) > 1
    assert requests[0].flags == dns.flags.RD | dns.flags.CD
    assert (requests[0].edns, requests[0].payload, requests[0].options) == (0, 1232, ())
    assert requests[0].ednsflags & dns.flags.DO


def test_upstream_is_asked_without_edns_for_a_guest_without() -> None:
    assert request_for(query()).edns == -1


def test_reply_skeletons_are_independent() -> None:
    assert reply_to(query()) is not reply_to(query())


def crowd(tmp_path: Path, limit: int, tunnels: int) -> tuple[Resolver, list[int]]:
    """Tunnels that each ask whenever they are admitted, and lose their oldest question now and then."""
    resolver = Resolver(ResolverSettings(max_pending=limit), tmp_path / "none")
    waiting = [0] * tunnels
    for turn in range(400 * tunnels):
        index = turn % tunnels
        if turn % 7 == 0 and waiting[index]:
            waiting[index] -= 1
            resolver.pending -= 1
        for _ in range(8):
            if waiting[index] < 128 and resolver.admits(waiting[index]):
                waiting[index] += 1
                resolver.pending += 1
    return resolver, waiting


@pytest.mark.parametrize(("limit", "tunnels"), [(1024, 1), (1024, 8), (1024, 100), (256, 20)])
def test_tunnels_that_ask_too_much_leave_room_for_one_that_does_not(
    tmp_path: Path, limit: int, tunnels: int
) -> None:
    resolver, waiting = crowd(tmp_path, limit, tunnels)
    assert min(waiting) >= 4
    assert resolver.pending <= limit - 4
    for already in range(4):
        assert resolver.admits(already)
        resolver.pending += 1


def test_one_tunnel_alone_gets_its_whole_share(tmp_path: Path) -> None:
    assert crowd(tmp_path, 1024, 1)[1] == [128]


def test_nobody_is_admitted_beyond_the_process_limit(tmp_path: Path) -> None:
    resolver = Resolver(ResolverSettings(max_pending=2), tmp_path / "none")
    assert resolver.admits(0)
    resolver.pending = 2
    assert not resolver.admits(0)


def test_without_a_process_limit_everybody_is_admitted(tmp_path: Path) -> None:
    resolver = Resolver(ResolverSettings(max_pending=0), tmp_path / "none")
    resolver.pending = 1_000_000
    assert resolver.admits(127)
