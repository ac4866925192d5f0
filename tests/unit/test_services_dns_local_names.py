"""Names that mean something only where the proxy runs: which they are, and how they are denied."""

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.services.dns.local_names import DENIAL_TTL, denial, owner_of_denial
from aero_l2.services.dns.message import Query, encode

DOCUMENTED_EDGES = [
    # zone's prefix: first address, last address, one before, one after
    ("0.0.0.0", "0.255.255.255", None, "1.0.0.0"),
    ("10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0"),
    ("100.64.0.0", "100.127.255.255", "100.63.255.255", "100.128.0.0"),
    ("127.0.0.0", "127.255.255.255", "126.255.255.255", "128.0.0.0"),
    ("169.254.0.0", "169.254.255.255", "169.253.255.255", "169.255.0.0"),
    ("172.16.0.0", "172.31.255.255", "172.15.255.255", "172.32.0.0"),
    ("192.0.2.0", "192.0.2.255", "192.0.1.255", "192.0.3.0"),
    ("192.168.0.0", "192.168.255.255", "192.167.255.255", "192.169.0.0"),
    ("198.51.100.0", "198.51.100.255", "198.51.99.255", "198.51.101.0"),
    ("203.0.113.0", "203.0.113.255", "203.0.112.255", "203.0.114.0"),
    ("255.255.255.255", "255.255.255.255", "255.255.255.254", None),
    ("::", "::1", None, "::2"),
    ("fc00::", "fdff:ffff::1", "fbff::1", "fe00::"),
    ("fe80::", "febf:ffff::1", "fe7f:ffff::1", "fec0::"),
    ("2001:db8::", "2001:db8:ffff::1", "2001:db7:ffff::1", "2001:db9::"),
]


def owner(text: str, rdtype: str = "A") -> str | None:
    found = owner_of_denial(dns.name.from_text(text), dns.rdatatype.from_text(rdtype))
    return None if found is None else found.to_text()


def reverse_owner(address: str) -> str | None:
    return owner(dns.reversename.from_address(address).to_text(), "PTR")


@pytest.mark.parametrize(("first", "last", "before", "after"), DOCUMENTED_EDGES)
def test_reverse_zones_are_denied_up_to_their_edges(
    first: str, last: str, before: str | None, after: str | None
) -> None:
    assert reverse_owner(first)
    assert reverse_owner(last)
    assert [reverse_owner(address) for address in (before, after) if address] == [None] * (
        (before is not None) + (after is not None)
    )


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("localhost", "."),
        ("app.localhost", "localhost."),
        ("Printer.LOCAL", "local."),
        ("_http._tcp.local", "local."),
        ("vault.corp.internal", "internal."),
        ("nas.home.arpa", "home.arpa."),
        ("home.arpa", "arpa."),
        ("abc.onion", "onion."),
        ("_dns.resolver.arpa", "resolver.arpa."),
        ("b._dns-sd._udp.0.0.10.in-addr.arpa", "10.in-addr.arpa."),
        ("10.in-addr.arpa", "in-addr.arpa."),
        ("intranet", "."),
        ("com", "."),
    ],
)
def test_local_names_are_denied_by_the_zone_above_them(name: str, zone: str) -> None:
    for rdtype in ("A", "AAAA", "TXT", "SRV", "ANY", "HTTPS"):
        assert owner(name, rdtype) == zone


@pytest.mark.parametrize(
    "name",
    [
        ".",
        "example.com",
        "local.example.com",
        "localhost.example.com",
        "notlocal.example",
        "xlocal.test",
        "arpa.test",
        "in-addr.arpa",
        "home.arpa.example",
        "8.8.8.8.in-addr.arpa",
    ],
)
def test_other_names_are_asked_for(name: str) -> None:
    assert owner(name) is None


@pytest.mark.parametrize("rdtype", ["DS", "DNSKEY"])
def test_validating_guest_may_ask_for_the_keys_of_a_top_level_domain_but_not_of_a_local_one(
    rdtype: str,
) -> None:
    assert owner("com", rdtype) is None
    assert owner("local", rdtype) == "."
    assert owner("x.local", rdtype) == "local."


@given(st.lists(st.binary(min_size=1, max_size=3), max_size=60))
def test_no_label_is_too_strange(labels: list[bytes]) -> None:
    name = dns.name.Name([*labels, b"local", b""])
    assert owner_of_denial(name, dns.rdatatype.A) in (dns.name.from_text("local"), dns.name.root)


@pytest.mark.parametrize(("edns", "tcp"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("name", ["x.LOCAL.", "intranet.", ".".join("a" * 120) + ".local."])
def test_denial_is_nxdomain_that_may_be_remembered_for_a_minute(name: str, edns: bool, tcp: bool) -> None:
    query = Query(7, dns.name.from_text(name), dns.rdatatype.A, edns=edns)
    zone = owner_of_denial(query.name, query.rdtype)
    assert zone is not None
    reply = dns.message.from_wire(encode(denial(query, zone), query, tcp=tcp))
    assert (reply.id, reply.rcode(), reply.answer) == (7, dns.rcode.NXDOMAIN, [])
    assert reply.question[0].name.to_text() == name
    [soa] = reply.authority
    assert (soa.name, soa.ttl, soa[0].minimum) == (zone, DENIAL_TTL, DENIAL_TTL)
    assert query.name.is_subdomain(soa.name)
