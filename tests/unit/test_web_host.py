"""The Host of a request: normal form, and whether it is ours."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.web.host import HostFault, HostRules, HostVerdict, InvalidHost, normalize_host

ADMITTED = HostVerdict(None, "")
MISSING = HostVerdict(HostFault.MISSING, "missing Host header")
MALFORMED = HostVerdict(HostFault.MALFORMED, "malformed Host header")

INVALID = [
    "",
    " ",
    "a b",
    " a",
    "a ",
    "a\n",
    "\u00e4.example",
    "http://a",
    "a/",
    "a/b",
    "user@a",
    "a?q",
    "a#f",
    "a%41",
    "a,b",
    "a\\b",
    "{a}",
    "a`b",
    "a:",
    ":80",
    "a:0",
    "a:65536",
    "a:8_0",
    "a:+80",
    "a:80:80",
    "a:" + "9" * 65000,
    "::1",
    "[::1",
    "[::1]80",
    "[::1]:",
    "[::1%25lo]",
    "[]",
    "1.2.3.256",
    "a.1",
    "a<b",
    "a^b",
    "a|b",
]


@pytest.mark.parametrize(
    ("text", "scheme", "normal"),
    [
        ("Example.COM", "http", "example.com"),
        ("example.com:80", "http", "example.com"),
        ("example.com:80", "https", "example.com:80"),
        ("example.com:0443", "https", "example.com"),
        ("example.com:443", "http", "example.com:443"),
        ("example.com.", "http", "example.com."),
        ("localhost:8090", "http", "localhost:8090"),
        ("0x7f.1:8090", "http", "127.0.0.1:8090"),
        ("[2001:DB8::0:1]:443", "https", "[2001:db8::1]"),
        ("xn--NXASMQ6B", "http", "xn--nxasmq6b"),
        ("a:" + "0" * 65000 + "81", "http", "a:81"),
    ],
)
def test_host_comes_out_as_browsers_write_it(text: str, scheme: str, normal: str) -> None:
    assert normalize_host(text, scheme) == normal


@pytest.mark.parametrize("text", INVALID)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidHost) as refused:
        normalize_host(text, "http")
    assert len(str(refused.value)) < 120


def test_schemes_but_http_and_https_are_refused() -> None:
    with pytest.raises(InvalidHost):
        normalize_host("a", "ws")


@given(st.ip_addresses(v=4), st.integers(1, 65535))
def test_every_way_to_write_an_ipv4_address_is_the_same_host(address: IPv4Address, port: int) -> None:
    number = int(address)
    a, rest = number >> 24, number & 0xFFFFFF
    forms = [
        str(address),
        str(number),
        hex(number),
        f"0{number:o}",
        f"{a:#x}.{rest}",
        f"{a}.0{rest:o}",
        f"{address}.",
    ]
    wanted = str(address) if port == 80 else f"{address}:{port}"
    assert {normalize_host(f"{form}:{port}", "http") for form in forms} == {wanted}


@given(st.ip_addresses(v=6))
def test_every_way_to_write_an_ipv6_address_is_the_same_host(address: IPv6Address) -> None:
    forms = [str(address), address.exploded, address.exploded.upper()]
    (normal,) = {normalize_host(f"[{form}]", "https") for form in forms}
    assert normal == normal.lower()
    assert IPv6Address(normal[1:-1]) == address


HOSTS = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12),
    st.from_regex(r"[A-Za-z0-9.-]{1,12}(:[0-9]{1,6})?", fullmatch=True),
    st.sampled_from(INVALID),
)
SCHEMES = st.sampled_from(["http", "https"])


@given(HOSTS, SCHEMES)
def test_whatever_is_accepted_follows_every_rule_and_is_its_own_normal_form(text: str, scheme: str) -> None:
    try:
        normal = normalize_host(text, scheme)
    except InvalidHost:
        return
    for host in (text, normal):
        assert re.fullmatch(r"[!-~]+", host)
        assert not set(host) & set("@?#%,\\{}`/<>^|")
        assert re.fullmatch(r"(\[[^\[\]]+\]|[^:\[\]]+)(:0*[1-9][0-9]{0,4})?", host)
    assert normal == normal.lower()
    assert not normal.endswith(":80" if scheme == "http" else ":443")
    assert normalize_host(normal, scheme) == normal


OURS = HostRules(("Emulator.Example", "10.0.0.1:8090", "[::1]:443"))


@pytest.mark.parametrize(
    ("host", "scheme"),
    [
        ("emulator.example", "http"),
        ("EMULATOR.example:80", "http"),
        ("emulator.example:443", "https"),
        ("10.0.1:8090", "https"),
        ("[::1]", "https"),
        ("[::1]:443", "http"),
    ],
)
def test_our_hosts_are_admitted(host: str, scheme: str) -> None:
    assert OURS.judge(host, scheme) == ADMITTED


@pytest.mark.parametrize(
    ("host", "scheme", "normal"),
    [
        ("Other.example", "http", "other.example"),
        ("emulator.example:443", "http", "emulator.example:443"),
        ("emulator.example:80", "https", "emulator.example:80"),
        ("emulator.example.", "http", "emulator.example."),
        ("10.0.0.1", "http", "10.0.0.1"),
        ("[::1]", "http", "[::1]"),
    ],
)
def test_other_hosts_are_refused(host: str, scheme: str, normal: str) -> None:
    assert OURS.judge(host, scheme) == HostVerdict(HostFault.NOT_ALLOWED, f"Host not allowed: {normal}")


@pytest.mark.parametrize("host", [None, ""])
def test_missing_host_is_refused(host: str | None) -> None:
    assert OURS.judge(host, "http") == MISSING


@pytest.mark.parametrize("host", [text for text in INVALID if text])
def test_malformed_host_is_refused(host: str) -> None:
    assert OURS.judge(host, "http") == MALFORMED


@pytest.mark.parametrize("host", [None, "", "emulator.example", "other.example"])
def test_host_that_cannot_be_told_is_malformed(host: str | None) -> None:
    assert OURS.judge(host, "http", malformed=True) == MALFORMED


@pytest.mark.parametrize("host", [None, "", "a", "a b"])
def test_without_hosts_of_ours_nothing_is_checked(host: str | None) -> None:
    assert HostRules(()).judge(host, "http") == ADMITTED
    assert HostRules(()).judge(host, "https", malformed=True) == ADMITTED


def test_an_entry_that_is_no_host_is_refused_at_once() -> None:
    with pytest.raises(InvalidHost):
        HostRules(("emulator.example", "http://emulator.example"))


@given(st.none() | HOSTS, SCHEMES)
def test_nothing_is_admitted_but_an_entry(host: str | None, scheme: str) -> None:
    verdict = OURS.judge(host, scheme)
    assert verdict.text.isascii()
    assert bool(verdict.text) == (verdict.fault is not None)
    if verdict.fault is None:
        assert host is not None
        assert normalize_host(host, scheme) in {normalize_host(entry, scheme) for entry in OURS.allowed}
