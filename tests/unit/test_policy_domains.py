"""Lists of domains: how they are written, which names they hold, and what is said about a destination."""

import time
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.config import load
from aero_l2.config.domains import domains
from aero_l2.config.values import BadValue
from aero_l2.errors import ConfigError
from aero_l2.policy.domains import DomainLists, DomainSet
from aero_l2.policy.egress import EgressPolicy
from aero_l2.policy.explain import Destination, Protocol, explain, explain_name
from aero_l2.session.spec import segment_spec

KEY = {"AERO_L2_API_KEY": "a-key-0123456789abcdef"}
LABELS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
NAMES = st.lists(LABELS, min_size=1, max_size=6).map(".".join)


def labels(name: str) -> list[bytes]:
    return name.encode().split(b".")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("example.com", ("example.com",)),
        (" .Example.COM. ,, ...,b.test,B.TEST.", ("b.test", "example.com")),
        ("com", ("com",)),
        ("_dmarc.example.com,xn--bcher-kva.example", ("_dmarc.example.com", "xn--bcher-kva.example")),
        ("", ()),
        (".,", ()),
    ],
)
def test_domains_are_trimmed_lowered_and_kept_once(text: str, found: tuple[str, ...]) -> None:
    assert domains(text) == found


@pytest.mark.parametrize(
    ("entry", "fix"),
    [
        ("*.example.com", "write example.com"),
        ("bücher.example", "write xn--bcher-kva.example"),
        ("ü ü", "write it in punycode"),
        ("192.0.2.7", "list names; AERO_L2_DENIED_CIDRS denies addresses"),
        ("192.0.2.0/24", "list names"),
        ("2001:db8::7", "list names"),
        ("https://example.com/", "write domains like example.com"),
        ("example.com:443", "write domains like example.com"),
        ("a..b", "write domains like example.com"),
        ("a" * 64 + ".test", "write domains like example.com"),
        (".".join(["a" * 49] * 6), "write domains like example.com"),
    ],
)
def test_entry_that_is_no_domain_is_refused_with_the_fix(entry: str, fix: str) -> None:
    with pytest.raises(BadValue) as fault:
        domains(f"good.test,{entry}")
    assert repr(entry) in str(fault.value)
    assert fault.value.fix.startswith(fix)


@pytest.mark.parametrize("setting", ["AERO_L2_ALLOWED_DOMAINS", "AERO_L2_BLOCKED_DOMAINS"])
def test_bad_domain_refuses_to_start_in_one_line(setting: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(KEY | {setting: "good.test,b@d.test"})
    (fault,) = error.value.faults
    assert fault.startswith(setting)
    assert "'b@d.test'" in fault
    assert "\n" not in fault


@pytest.mark.parametrize(
    ("name", "denied"),
    [
        ("example.com", False),
        ("a.b.EXAMPLE.com", False),
        ("example.com.test", True),
        ("notexample.com", True),
        ("com", True),
        ("secret.example.com", True),
        ("a.Secret.example.com", True),
        ("asecret.example.com", False),
    ],
)
def test_names_are_judged_on_label_boundaries_and_block_wins(name: str, denied: bool) -> None:
    lists = DomainLists(("example.com",), ("secret.example.com", "other.test"))
    assert lists.denies(labels(name)) is denied


def test_label_with_a_dot_in_it_is_one_label() -> None:
    assert DomainLists(("example.com",)).denies([b"example.com"])
    assert not DomainLists(blocked=("example.com",)).denies([b"a.example", b"com"])


def test_root_is_of_no_domain() -> None:
    assert DomainLists(("example.com",)).denies([])
    assert not DomainLists(blocked=("example.com",)).denies([])


@given(st.lists(NAMES, max_size=8), NAMES)
def test_found_domain_is_a_suffix_and_none_is_missed(listed: list[str], name: str) -> None:
    found = DomainSet(listed).find(labels(name))
    holding = [domain for domain in listed if f".{name}".endswith(f".{domain}")]
    assert (found in holding) if holding else (found is None)


def test_many_domains_cost_no_more_than_a_few() -> None:
    few, many = (DomainSet(f"d{n}.example{n % 7}.test" for n in range(count)) for count in (10, 50_000))
    name = labels(".".join(["x"] * 120 + ["d7", "example0", "test"]))

    def cost(domains: DomainSet) -> float:
        start = time.perf_counter()
        for _ in range(300):
            assert domains.find(name)
        return time.perf_counter() - start

    assert min(cost(many) for _ in range(5)) < 5 * min(cost(few) for _ in range(5))


def test_lists_reach_the_firewall() -> None:
    def rules(**variables: str) -> tuple[bool, bool]:
        spec = segment_spec(load(KEY | variables).settings)
        return spec.only_named, spec.redirect_dns

    assert rules() == (False, False)
    assert rules(AERO_L2_BLOCKED_DOMAINS="a.test") == (False, True)
    assert rules(AERO_L2_ALLOWED_DOMAINS="a.test") == (True, True)
    assert rules(AERO_L2_ALLOWED_DOMAINS=" , .") == (False, False)


ALLOWING = DomainLists(("example.com",), ("bad.example.com",))
BLOCKING = DomainLists(blocked=("bad.example.com",))


@pytest.mark.parametrize(
    ("lists", "name", "port", "allowed", "said"),
    [
        (
            ALLOWING,
            "www.example.com",
            None,
            True,
            "example.com is an allowed domain (AERO_L2_ALLOWED_DOMAINS)",
        ),
        (ALLOWING, "www.example.com", 25, False, "TCP port 25 is denied"),
        (ALLOWING, "www.example.com", 853, False, "encrypted DNS (port 853)"),
        (ALLOWING, "www.example.com", 53, True, "DNS to any server goes to the gateway's own"),
        (ALLOWING, "example.org", 53, False, "of no allowed domain (AERO_L2_ALLOWED_DOMAINS)"),
        (ALLOWING, "x.bad.example.com", 443, False, "bad.example.com is a blocked domain"),
        (ALLOWING, "example.org", 443, False, "of no allowed domain (AERO_L2_ALLOWED_DOMAINS)"),
        (BLOCKING, "example.org", 443, True, "no list denies the name; its addresses are judged one by one"),
        (BLOCKING, "bad.example.com", None, False, "AERO_L2_BLOCKED_DOMAINS"),
        (DomainLists(), "example.org", 853, True, "no list denies the name"),
    ],
)
def test_name_is_explained(lists: DomainLists, name: str, port: int | None, allowed: bool, said: str) -> None:
    verdict = explain_name(EgressPolicy(), lists, name, "tcp", port)
    assert verdict.allowed is allowed
    assert said in verdict.reason


@pytest.mark.parametrize(
    ("lists", "address", "port", "protocol", "allowed", "said"),
    [
        (ALLOWING, "8.8.8.8", 443, "tcp", True, "only while DNS has handed it out for an allowed name"),
        (ALLOWING, "8.8.8.8", None, "ping", True, "only while DNS has handed it out for an allowed name"),
        (ALLOWING, "8.8.8.8", 53, "udp", True, "goes to the gateway's own"),
        (ALLOWING, "10.0.0.1", 53, "udp", True, "goes to the gateway's own"),
        (ALLOWING, "127.0.0.1", 53, "udp", False, "loopback"),
        (ALLOWING, "8.8.8.8", 853, "udp", False, "encrypted DNS"),
        (ALLOWING, "10.0.0.1", 853, "tcp", False, "private use"),
        (BLOCKING, "8.8.8.8", 443, "tcp", True, "no rule denies it"),
        (BLOCKING, "8.8.8.8", 53, "tcp", True, "goes to the gateway's own"),
        (DomainLists(), "8.8.8.8", 53, "tcp", True, "no rule denies it"),
    ],
)
def test_address_is_explained_with_lists(
    lists: DomainLists, address: str, port: int | None, protocol: Protocol, allowed: bool, said: str
) -> None:
    destination = Destination(IPv4Address(address), protocol, port)
    verdict = explain(EgressPolicy(), (), (), destination, lists)
    assert verdict.allowed is allowed
    assert said in verdict.reason
    assert verdict.depends is str(verdict).startswith("depends: ") is ("only while" in said)
