"""How a request reached us: which proxy is believed, and what no client can make us believe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_network
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.datastructures import Headers

from aero_l2.web.forwarded import ProxyTrust, Via, client_group, via
from aero_l2.web.rfc7239 import MAX_HOPS, Element, address_of, parse_forwarded, parse_node

PEER = "10.0.0.1"  # the proxy next to us
INNER = "10.0.0.2"  # one of ours in front of it
CLIENT = "198.51.100.7"
EVIL = "6.6.6.6"  # what a client would like to be

OFF = ProxyTrust()
FIRST = ProxyTrust(client=True, host=True)
OURS = ProxyTrust(client=True, host=True, proxies=(ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48")))

Lines = Iterable[tuple[str, str]]


def reached(lines: Lines, trust: ProxyTrust, peer: str = PEER) -> Via:
    headers = Headers()
    for name, value in lines:
        headers[name] = value
    return via(peer, headers, trust)


def client(lines: Lines, trust: ProxyTrust, peer: str = PEER) -> str:
    return reached(lines, trust, peer).client


# --- Syntax -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "elements"),
    [
        (
            ["for=192.0.2.60;proto=http;by=203.0.113.43"],
            [{"for": "192.0.2.60", "proto": "http", "by": "203.0.113.43"}],
        ),
        (['For="[2001:db8:cafe::17]:4711"'], [{"for": "[2001:db8:cafe::17]:4711"}]),
        (["for=192.0.2.43, for=198.51.100.17"], [{"for": "192.0.2.43"}, {"for": "198.51.100.17"}]),
        (["for=a", "for=b,for=c"], [{"for": "a"}, {"for": "b"}, {"for": "c"}]),
        (['for="_gazonk"'], [{"for": "_gazonk"}]),
        (['host="a,b;c\\"d\\\\";for=x'], [{"host": 'a,b;c"d\\', "for": "x"}]),
        (["for=a ; host=b\t;;"], [{"for": "a", "host": "b"}]),
        (["for=[2001:db8::1]:80,for=2001:db8::2"], [{"for": "[2001:db8::1]:80"}, {"for": "2001:db8::2"}]),
        (["HOST=a;Proto=HTTPS"], [{"host": "a", "proto": "HTTPS"}]),
        (['for=""'], [{"for": ""}]),
        (["for=a,"], [{"for": "a"}, {}]),
        (["", "for=a"], [{}, {"for": "a"}]),
        (["for=a;for=b, for=c"], [None, {"for": "c"}]),
        (["for=a b, for=c"], [None, {"for": "c"}]),
        (["for, =a, for=, for =a, (x), for=d"], [None, None, None, None, None, {"for": "d"}]),
        (['for="a, for=b'], [None]),
        (['for="a"b, for=c'], [None]),
        (['for=a, x="y, for=b', "for=c"], [{"for": "a"}, None, {"for": "c"}]),
        (['for="a\\'], [None]),
        ([",".join(["for=a"] * MAX_HOPS)], [{"for": "a"}] * MAX_HOPS),
        ([",".join(["for=a"] * MAX_HOPS), "for=b"], [None]),
    ],
)
def test_forwarded_is_read_as_rfc_7239_says(lines: list[str], elements: list[Element | None]) -> None:
    assert parse_forwarded(lines) == elements


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:65535", "192.0.2.1"),
        ("192.0.2.1:_port", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        (" [fe80::1%eth0]:1 ", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:c000:201]:80", "192.0.2.1"),
    ],
)
def test_node_is_an_address_without_port_and_zone(text: str, address: str) -> None:
    assert str(parse_node(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "unknown",
            "_hidden",
            "_SEVKISEK",
            "localhost",
            "unix:",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "1.2.3.04",
        ),
        *(
            "1.2.3.4:",
            "1.2.3.4:123456",
            "1.2.3.4:8O",
            "[1.2.3.4]",
            "[::1",
            "::1]",
            "[::1]80",
            "[::1]:",
            "[]",
            "[[::1]]",
        ),
        *(
            "1.2.3.4 5.6.7.8",
            "1.2.3.4/32",
            "::1/128",
            "0x7f.1",
            "2130706433",
            "\u0661.2.3.4",
            '"1.2.3.4"',
            ":" * 60000,
        ),
    ],
)
def test_node_that_is_no_address_is_none(text: str) -> None:
    assert parse_node(text) is None


# --- Whose headers count ------------------------------------------------------------------------------------

SPOOFED = [
    ("Forwarded", f"for={EVIL};host=evil.example;proto=https"),
    ("X-Forwarded-For", EVIL),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Proto", "https"),
    ("Host", "real.example"),
]
AS_SENT = Via(PEER, "real.example", False, "http")


def test_without_trust_no_header_counts() -> None:
    assert reached(SPOOFED, OFF) == AS_SENT


@pytest.mark.parametrize("peer", ["198.51.100.7", "11.0.0.1", "2001:db8:2::1", "", "unix:"])
def test_headers_of_peers_outside_the_prefixes_do_not_count(peer: str) -> None:
    assert reached(SPOOFED, OURS, peer) == replace(AS_SENT, client=peer)


def test_prefixes_alone_trust_nothing() -> None:
    assert reached(SPOOFED, ProxyTrust(proxies=OURS.proxies)) == AS_SENT


def test_client_and_host_are_trusted_apart() -> None:
    assert reached(SPOOFED, replace(FIRST, host=False)) == replace(AS_SENT, client=EVIL)
    assert reached(SPOOFED, replace(FIRST, client=False)) == Via(PEER, "evil.example", False, "https")


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("", ""),
    ],
)
def test_peer_is_reported_bare(peer: str, text: str) -> None:
    assert client([], OFF, peer) == text


@pytest.mark.parametrize("prefix", ["10.0.0.0/8", "::ffff:10.0.0.0/104"])
@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1"])
def test_ipv4_mapped_addresses_and_prefixes_are_ipv4(peer: str, prefix: str) -> None:
    trust = ProxyTrust(client=True, proxies=(ip_network(prefix),))
    assert client([("X-Forwarded-For", "::ffff:198.51.100.7")], trust, peer) == CLIENT


# --- Without prefixes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ([], PEER),
        ([("X-Forwarded-For", CLIENT)], CLIENT),
        ([("X-Forwarded-For", f"{CLIENT}, 10.0.0.9")], CLIENT),
        ([("X-Forwarded-For", CLIENT), ("X-Forwarded-For", "10.0.0.9")], CLIENT),
        ([("X-Forwarded-For", f"unknown, {CLIENT}")], PEER),
        ([("X-Forwarded-For", " ")], PEER),
        ([("Forwarded", f"for={CLIENT}, for=10.0.0.9"), ("X-Forwarded-For", EVIL)], CLIENT),
        ([("Forwarded", 'for="[2001:db8::7]:4711"')], "2001:db8::7"),
        ([("Forwarded", "for=unknown, for=10.0.0.9"), ("X-Forwarded-For", CLIENT)], CLIENT),
        ([("Forwarded", "for=_hidden"), ("X-Forwarded-For", CLIENT)], CLIENT),
        ([("Forwarded", "host=a"), ("X-Forwarded-For", CLIENT)], CLIENT),
        ([("Forwarded", 'for="'), ("X-Forwarded-For", CLIENT)], CLIENT),
        ([("Forwarded", ""), ("X-Forwarded-For", CLIENT)], CLIENT),
        ([("Forwarded", "for=unknown")], PEER),
    ],
)
def test_without_prefixes_the_first_address_is_the_client(lines: Lines, address: str) -> None:
    assert client(lines, FIRST) == address


@pytest.mark.parametrize(
    ("lines", "host", "scheme"),
    [
        ([], "real.example", "http"),
        ([("Origin", "https://page.example")], "real.example", "https"),
        ([("Origin", "https://page.example")] * 2, "real.example", "http"),
        ([("Origin", "null")], "real.example", "http"),
        ([("Origin", "https://page.example/x")], "real.example", "http"),
        ([("X-Forwarded-Host", "a:81, b"), ("X-Forwarded-Proto", "HTTPS, http")], "a:81", "https"),
        ([("Forwarded", 'host="a:81";proto=https'), ("X-Forwarded-Host", "b")], "a:81", "https"),
        ([("Forwarded", "for=x, host=a, host=b")], "a", "http"),
        ([("Forwarded", "for=x"), ("X-Forwarded-Host", "b"), ("X-Forwarded-Proto", "wss")], "b", "https"),
        (
            [("Forwarded", "proto=http"), ("X-Forwarded-Proto", "https"), ("Origin", "https://a")],
            "real.example",
            "http",
        ),
        ([("X-Forwarded-Proto", "gopher"), ("Origin", "https://a")], "real.example", "https"),
        ([("X-Forwarded-Host", ""), ("X-Forwarded-Proto", "")], "real.example", "http"),
    ],
)
def test_host_and_scheme_are_the_first_forwarded_ones(lines: Lines, host: str, scheme: str) -> None:
    assert reached([*lines, ("Host", "real.example")], FIRST) == Via(PEER, host, False, scheme)


@pytest.mark.parametrize(
    "lines",
    [
        [("X-Forwarded-Host", ", a")],
        [("Forwarded", 'host=""')],
        [("Forwarded", 'host="a'), ("X-Forwarded-Host", "a")],
        [("Forwarded", "host=a;host=b")],
        [("Host", "real.example")],
        [("X-Forwarded-Host", "a"), ("Host", "real.example")],
    ],
)
def test_forwarded_host_that_cannot_be_read_is_malformed_as_several_hosts_are(lines: Lines) -> None:
    assert reached([*lines, ("Host", "real.example")], FIRST) == Via(PEER, None, True, "http")


@pytest.mark.parametrize("lines", [[], [("Host", "")]])
def test_missing_host_is_none(lines: Lines) -> None:
    assert reached(lines, OFF) == Via(PEER, None, False, "http")


# --- With prefixes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "address"),
    [
        (CLIENT, CLIENT),
        (f"{EVIL}, {CLIENT}", CLIENT),
        (f"{EVIL}, {CLIENT}, {INNER}", CLIENT),
        (f"{EVIL}, {INNER}, {CLIENT}", CLIENT),
        (f"{EVIL}, 10.0.0.3, {CLIENT}, {INNER}, 2001:db8:1::5", CLIENT),
        (f"2001:db8:2::7, {INNER}", "2001:db8:2::7"),
        (INNER, INNER),
        (f"10.0.0.3, {INNER}", "10.0.0.3"),
        ("unknown", PEER),
        (f"{EVIL}, unknown", PEER),
        (f"{EVIL}, _hidden, {INNER}", INNER),
        (f"{EVIL}, , {INNER}", INNER),
        (f"{EVIL},", PEER),
        (f"{EVIL}, {CLIENT}x", PEER),
        (" ", PEER),
    ],
)
def test_rightmost_address_that_is_not_a_proxy_is_the_client(chain: str, address: str) -> None:
    forwarded = ", ".join(f'for="{node.strip()}"' for node in chain.split(","))
    assert client([("X-Forwarded-For", chain)], OURS) == address
    assert client([("Forwarded", forwarded)], OURS) == address
    assert client([("X-Forwarded-For", node) for node in chain.split(",")], OURS) == address
    assert client([("X-Forwarded-For", chain), ("Forwarded", forwarded)], OURS) == address


def test_endless_chain_ends_at_the_client() -> None:
    assert client([("X-Forwarded-For", ",".join([EVIL] * 5000 + [CLIENT]))], OURS) == CLIENT
    assert client([("Forwarded", ",".join([f"for={EVIL}"] * 5000 + [f"for={CLIENT}"]))], OURS) == PEER


@pytest.mark.parametrize(
    "lines",
    [
        [("Forwarded", f"for={EVIL}"), ("X-Forwarded-For", CLIENT)],
        [("Forwarded", f"for={CLIENT}"), ("X-Forwarded-For", EVIL)],
        [("Forwarded", f"for={EVIL}, for={INNER}"), ("X-Forwarded-For", CLIENT)],
        [("Forwarded", f"for={EVIL}, for={INNER}"), ("X-Forwarded-For", f"{CLIENT}, {INNER}")],
        [("Forwarded", "for=unknown"), ("X-Forwarded-For", CLIENT)],
        [("Forwarded", 'for="'), ("X-Forwarded-For", CLIENT)],
    ],
)
def test_headers_that_contradict_each_other_name_nobody_but_the_proxy(lines: Lines) -> None:
    assert client(lines, OURS) == PEER


def test_quote_of_a_client_does_not_swallow_the_proxys_element() -> None:
    for open_quote in ('x="', f'for={EVIL};x="', f'for={EVIL}, x="\\', f'for="{EVIL}'):
        appended = f'{open_quote}, for="{CLIENT}"'
        assert client([("Forwarded", appended)], OURS) == PEER
        assert client([("Forwarded", open_quote), ("Forwarded", f"for={CLIENT}")], OURS) == CLIENT
    crafted = f'x=", for="{CLIENT}";host=",for={EVIL},x="'
    assert client([("Forwarded", crafted)], OURS) == PEER


@pytest.mark.parametrize(
    ("lines", "host", "scheme"),
    [
        ([("Forwarded", f"host=evil, for={CLIENT};host=a;proto=https")], "a", "https"),
        (
            [("Forwarded", f"host=evil, for={CLIENT};host=a;proto=https, for={INNER};host=inner")],
            "a",
            "https",
        ),
        ([("Forwarded", f"host=evil;proto=https, for={CLIENT}, for={INNER};host=a")], "a", "http"),
        ([("Forwarded", f"host=evil, for={CLIENT}")], "real.example", "http"),
        ([("Forwarded", "host=evil, for=unknown;host=a")], "a", "http"),
        ([("X-Forwarded-Host", "evil, a"), ("X-Forwarded-Proto", "http, https")], "a", "https"),
        ([("X-Forwarded-Host", "evil, a"), ("X-Forwarded-For", CLIENT)], "a", "http"),
        (
            [("X-Forwarded-Host", "evil, a, b"), ("X-Forwarded-For", f"{EVIL}, {CLIENT}, {INNER}")],
            "a",
            "http",
        ),
        ([("X-Forwarded-Host", "a"), ("X-Forwarded-For", f"{CLIENT}, {INNER}")], "a", "http"),
        ([("X-Forwarded-Host", "evil, a"), ("X-Forwarded-For", INNER)], "a", "http"),
        ([("Forwarded", "host=A;proto=https"), ("X-Forwarded-Host", "a:443")], "A", "https"),
        ([("X-Forwarded-Proto", "https"), ("Forwarded", "proto=http")], "real.example", "http"),
    ],
)
def test_host_and_scheme_are_what_the_outermost_proxy_saw(lines: Lines, host: str, scheme: str) -> None:
    seen = reached([*lines, ("Host", "real.example")], OURS)
    assert (seen.host, seen.host_malformed, seen.scheme) == (host, False, scheme)


@pytest.mark.parametrize(
    "lines",
    [
        [("Forwarded", "host=evil"), ("X-Forwarded-Host", "a")],
        [("Forwarded", "host=a"), ("X-Forwarded-Host", "a b")],
        [("Forwarded", 'host="'), ("X-Forwarded-Host", "a")],
        [("Forwarded", 'host=evil, x="')],
        [("X-Forwarded-Host", "evil,")],
    ],
)
def test_forwarded_hosts_that_contradict_each_other_are_malformed(lines: Lines) -> None:
    assert reached([*lines, ("Host", "a")], OURS) == Via(PEER, None, True, "http")


# --- Whatever a client sends --------------------------------------------------------------------------------

NODES = st.sampled_from(
    [EVIL, EVIL, f"{EVIL}:1", "10.9.9.9", "[2001:db8:1::9]:1", "unknown", "_x", "", CLIENT, PEER]
)
GARBAGE = st.one_of(
    st.text('for=host;,"\\ 16.[]:x_', max_size=40),
    st.sampled_from(
        ['x="', 'for=6.6.6.6, x="', 'for="6.6.6.6', 'host=",for=6.6.6.6,x="', ",", "\\", '"', 'x="\\']
    ),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=20),
)
ELEMENTS = st.lists(
    NODES.map('for="{}";host=evil;proto=https'.format) | NODES.map('for="{}"'.format), max_size=3
)
FORGED = {
    "Forwarded": ELEMENTS.map(", ".join) | GARBAGE,
    "X-Forwarded-For": st.lists(NODES, max_size=4).map(", ".join) | GARBAGE,
    "X-Forwarded-Host": st.sampled_from(["evil", "evil, evil", "", "real.example"]) | GARBAGE,
    "X-Forwarded-Proto": st.sampled_from(["https", "http, https", "wss"]) | GARBAGE,
}
FORGERIES = st.lists(
    st.sampled_from([*FORGED]).flatmap(lambda name: st.tuples(st.just(name), FORGED[name])), max_size=4
)
OTHERS = st.lists(st.tuples(st.sampled_from(["Host", "Origin", "forwarded"]), GARBAGE), max_size=3)
TRUSTS = [OFF, FIRST, OURS, replace(FIRST, host=False), replace(OURS, client=False)]


@given(FORGERIES, OTHERS, st.sampled_from(TRUSTS), st.sampled_from([PEER, CLIENT, "::1", "", "nonsense"]))
def test_any_headers_give_an_answer(
    forged: list[tuple[str, str]], others: list[tuple[str, str]], trust: ProxyTrust, peer: str
) -> None:
    seen = reached([*forged, *others], trust, peer)
    assert seen.client == peer or address_of(seen.client) is not None
    assert seen.scheme in {"http", "https"}
    assert seen.host is None or (seen.host and not seen.host_malformed)


def joined(headers: dict[str, list[str]], name: str, value: str) -> None:
    headers[name] = [", ".join([*headers.get(name, []), value])]


def added(headers: dict[str, list[str]], name: str, value: str) -> None:
    headers[name] = [*headers.get(name, []), value]


Append = Callable[[dict[str, list[str]], str, str], None]


@settings(max_examples=400)
@given(
    forged=FORGERIES,
    hops=st.integers(1, 3),
    append=st.sampled_from([joined, added]),
    writes=st.sampled_from(["Forwarded", "X-Forwarded-For", "both"]),
)
def test_no_client_behind_our_proxies_chooses_its_address_or_host(
    forged: list[tuple[str, str]], hops: int, append: Append, writes: str
) -> None:
    """Proxies of ours that append to what they get, in either family of headers, joined or as a new line."""
    headers: dict[str, list[str]] = {}
    for name, value in forged:
        added(headers, name, value)
    proxies = [f"10.0.0.{10 + hop}" for hop in range(hops)]
    for before in [CLIENT, *proxies[:-1]]:
        if writes != "X-Forwarded-For":
            append(headers, "Forwarded", f'for="{before}:4711";host="real.example"')
        if writes != "Forwarded":
            append(headers, "X-Forwarded-For", before)
            append(headers, "X-Forwarded-Host", "real.example")
    lines = [(name, value) for name, values in headers.items() for value in values]
    seen = reached([*lines, ("Host", "inside.example")], OURS, proxies[-1])
    assert seen.client in {CLIENT, *proxies}
    assert seen.host in {"real.example", None}
    if not forged:
        assert seen == Via(CLIENT, "real.example", False, "http")


@pytest.mark.parametrize(
    "piece",
    [
        ",",
        ";",
        "a",
        '"',
        "\\",
        " ",
        "\t; ",
        "a=b;",
        'a="',
        'a="b",',
        "a=b,",
        "for=1.2.3.4,",
        "[",
        ":",
        "1.",
        "a=[:",
    ],
)
@pytest.mark.parametrize("trust", [FIRST, OURS])
def test_a_head_full_of_anything_takes_little_time(piece: str, trust: ProxyTrust) -> None:
    text = piece * (65536 // len(piece))
    started = process_time()
    for name in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Host", "Origin"):
        reached([(name, text)], trust)
    reached([("Forwarded", f'a="{text}')], trust)
    assert process_time() - started < 0.5


# --- Whom limits count --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("no address", "no address"),
    ],
)
def test_limits_count_an_ipv4_address_or_an_ipv6_64(address: str, group: str) -> None:
    assert client_group(address) == group


@given(st.text(max_size=20) | st.ip_addresses(v=6).map(str))
def test_group_of_anything_is_a_text(address: str) -> None:
    assert isinstance(client_group(address), str)
