"""What a guest may reach, as settings: lists that are accepted, refused, blank or unset."""

from ipaddress import IPv4Address, IPv4Network, IPv6Network
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.config import Settings, gather, load
from aero_l2.config.effective import lines
from aero_l2.config.egress import ALL_PORTS, UNREACHABLE, ports
from aero_l2.errors import ConfigError
from aero_l2.policy.egress import DENIED_PREFIX, HOST_ADDRESS, EgressPolicy
from aero_l2.policy.prefixes import ALWAYS_DENIED, SPECIAL_PREFIXES, UNROUTABLE

KEY = {"AERO_L2_API_KEY": "a-key-0123456789abcdef"}
PORT_LISTS = [
    "AERO_L2_DENIED_TCP_PORTS",
    "AERO_L2_ALLOWED_TCP_PORTS",
    "AERO_L2_DENIED_UDP_PORTS",
    "AERO_L2_ALLOWED_UDP_PORTS",
]
PREFIX_LISTS = ["AERO_L2_DENIED_CIDRS", "AERO_L2_ALLOWED_CIDRS"]
NOBODY: frozenset[IPv4Address] = frozenset()


def settings(**variables: str) -> Settings:
    return load(KEY | variables).settings


def policy(**variables: str) -> EgressPolicy:
    return EgressPolicy.of(settings(**variables))


def only_fault(**variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(KEY | variables)
    (fault,) = caught.value.faults
    return fault


def test_policy_of_no_settings_is_the_default() -> None:
    assert policy() == EgressPolicy()


@pytest.mark.parametrize("value", ["1", "true", "Yes", "on"])
def test_private_addresses_are_allowed_by_a_switch(value: str) -> None:
    assert policy(AERO_L2_ALLOW_PRIVATE_IPS=value).special == ALWAYS_DENIED
    assert policy(AERO_L2_ALLOW_PRIVATE_IPS="no").special == SPECIAL_PREFIXES


@pytest.mark.parametrize("name", PORT_LISTS)
@pytest.mark.parametrize("blank", ["", "  ", " , "])
def test_blank_port_list_is_a_list_of_no_port(name: str, blank: str) -> None:
    field = name.removeprefix("AERO_L2_").lower()
    assert getattr(settings(**{name: blank}), field) == ()


def test_unset_port_lists_allow_all_but_mail() -> None:
    got = settings()
    assert (got.denied_tcp_ports, got.allowed_tcp_ports) == (((25, 25),), ALL_PORTS)
    assert (got.denied_udp_ports, got.allowed_udp_ports) == ((), ALL_PORTS)


def test_mail_is_not_denied_by_default_where_tcp_ports_are_listed() -> None:
    assert settings(AERO_L2_ALLOWED_TCP_PORTS="25").denied_tcp_ports == ()
    assert settings(AERO_L2_ALLOWED_TCP_PORTS="").denied_tcp_ports == ()
    assert settings(AERO_L2_ALLOWED_TCP_PORTS="25", AERO_L2_DENIED_TCP_PORTS="25").denied_tcp_ports == (
        (25, 25),
    )
    assert settings(AERO_L2_ALLOWED_UDP_PORTS="53").denied_tcp_ports == ((25, 25),)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("80", ((80, 80),)),
        (" 443 , 80,", ((80, 80), (443, 443))),
        ("8000-8100", ((8000, 8100),)),
        ("8000 - 8100,8101,7990-8005", ((7990, 8101),)),
        ("1,65535", ((1, 1), (65535, 65535))),
        ("1-65535", ALL_PORTS),
    ],
)
def test_ports_are_sorted_and_merged(value: str, meant: tuple[tuple[int, int], ...]) -> None:
    assert ports(value) == meant


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 40)), max_size=12))
def test_merged_ports_are_those_that_were_listed(listed: list[tuple[int, int]]) -> None:
    text = ",".join(f"{low}-{low + more}" for low, more in listed)
    merged = ports(text)
    wanted = {port for low, more in listed for port in range(low, low + more + 1)}
    assert {port for first, last in merged for port in range(first, last + 1)} == wanted
    assert all(before[1] + 1 < after[0] for before, after in pairwise(merged))


@pytest.mark.parametrize("name", PORT_LISTS)
@pytest.mark.parametrize(
    "entry", ["http", "0", "65536", "-1", "80-", "-", "80-70", "8000-8100-8200", "80;443", "0x50", "８０"]
)
def test_port_that_is_none_is_refused(name: str, entry: str) -> None:
    fault = only_fault(**{name: f"80,{entry}"})
    assert fault.startswith(f"{name}='80,{entry}' has ")


def test_too_many_ranges_are_refused() -> None:
    fault = only_fault(AERO_L2_DENIED_TCP_PORTS=",".join(str(2 * n) for n in range(1, 258)))
    assert fault.endswith("has 257 ranges of ports: keep to 256")


@pytest.mark.parametrize("name", PREFIX_LISTS)
def test_prefixes_are_sorted_and_merged_and_blank_is_unset(name: str) -> None:
    field = name.removeprefix("AERO_L2_").lower()
    got = getattr(settings(**{name: "192.168.1.128/25, 192.168.1.0/25,8.8.8.8,,192.168.1.7/32"}), field)
    assert got == (IPv4Network("8.8.8.8/32"), IPv4Network("192.168.1.0/24"))
    assert getattr(settings(**{name: " "}), field) == ()


@pytest.mark.parametrize("name", PREFIX_LISTS)
@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("10.1.2.3/8", "an address with bits beyond its prefix: write 10.0.0.0/8 or 10.1.2.3"),
        ("10.1.2.3/0", "an address with bits beyond its prefix: write 0.0.0.0/0 or 10.1.2.3"),
        ("example.org", "which is no prefix and no address: write prefixes"),
        ("10.0.0", "which is no prefix and no address"),
        ("010.0.0.0/8", "which is no prefix and no address"),
        ("10.0.0.0/33", "whose prefix length is not 0 to 32"),
        ("10.0.0.0/", "whose prefix length is not 0 to 32"),
        ("10.0.0.0/255.0.0.0", "whose prefix length is not 0 to 32"),
        ("10.0.0.0/0.255.255.255", "whose prefix length is not 0 to 32"),
    ],
)
def test_prefix_that_is_none_is_refused_with_the_fix(name: str, entry: str, said: str) -> None:
    fault = only_fault(**{name: f"8.8.8.8,{entry}"})
    assert fault.startswith(f"{name}='8.8.8.8,{entry}' has {entry!r}")
    assert said in fault


@pytest.mark.parametrize("entry", ["fd00::/8", "::1", "::/0"])
def test_ipv6_may_be_denied_and_cannot_be_allowed(entry: str) -> None:
    got = settings(AERO_L2_DENIED_CIDRS=f"{entry},8.8.8.8")
    assert got.denied_cidrs == (IPv4Network("8.8.8.8"), IPv6Network(entry))
    assert EgressPolicy.of(got).denied == (IPv4Network("8.8.8.8"),)
    assert only_fault(AERO_L2_ALLOWED_CIDRS=entry).endswith(": guests have no IPv6: leave it out")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("fd00::1/8", "write fd00::/8 or fd00::1"),
        ("fd00::/129", "which is no IPv6 prefix"),
        ("fd00::/", "which is no IPv6 prefix"),
        ("fe80::1%eth0", "which is no IPv6 prefix"),
        ("fd00::/ffff::", "which is no IPv6 prefix"),
        ("::ffff:9.9.9.9", "an IPv4 address in IPv6 form: write 9.9.9.9"),
        ("::ffff:10.0.0.0/104", "an IPv4 address in IPv6 form: write 10.0.0.0"),
    ],
)
def test_ipv6_prefix_that_is_none_is_refused_with_the_fix(entry: str, said: str) -> None:
    assert said in only_fault(AERO_L2_DENIED_CIDRS=entry)


def test_too_many_prefixes_are_refused() -> None:
    value = ",".join(f"8.{n // 128}.{n % 128}.0" for n in range(513))
    assert only_fault(AERO_L2_DENIED_CIDRS=value).endswith("has 513 prefixes: keep to 512")


@pytest.mark.parametrize(
    "prefix",
    [
        *("0.0.0.0", "0.0.0.0/8", "10.0.2.0/24", "10.0.2.77", "10.0.3.2", "127.0.0.1", "127.0.0.0/8"),
        *("224.0.0.251", "224.0.0.0/4", "255.255.255.255"),
    ],
)
def test_prefix_that_nothing_can_open_is_refused_as_allowed_and_accepted_as_denied(prefix: str) -> None:
    fault = only_fault(AERO_L2_ALLOWED_CIDRS=f"10.0.0.0/8,{prefix}")
    assert f"has {prefix!r}, which nothing can open: " in fault
    assert settings(AERO_L2_DENIED_CIDRS=prefix).denied_cidrs == (IPv4Network(prefix),)


def test_what_settings_refuse_to_open_is_what_the_policy_calls_unroutable() -> None:
    assert {prefix.network for prefix in UNROUTABLE} == set(UNREACHABLE)


def test_dns_answers_are_judged_by_the_lists_in_order() -> None:
    host = IPv4Address("45.33.32.10")
    judged = policy(
        AERO_L2_DENIED_CIDRS="10.1.0.0/16,8.8.4.4",
        AERO_L2_ALLOWED_CIDRS=f"10.0.0.0/8,169.254.169.254,240.0.0.1,{host},8.8.4.0/24",
    )
    hosts = frozenset({host, IPv4Address("45.33.32.11")})
    expected = {
        "10.1.2.3": DENIED_PREFIX,
        "8.8.4.4": DENIED_PREFIX,
        "8.8.4.5": None,
        "10.2.0.1": None,
        "169.254.169.254": None,
        "240.0.0.1": None,
        "45.33.32.10": None,
        "45.33.32.11": HOST_ADDRESS,
        "10.0.3.2": "the network of the NAT process (docs/SPECIFICATION.md)",
        "10.0.2.77": "the LAN of the guest (docs/SPECIFICATION.md)",
        "192.168.0.1": "private use (RFC 1918)",
        "93.184.216.34": None,
    }
    got = {text: judged.denies_address(IPv4Address(text), hosts) for text in expected}
    assert got == expected


def test_allowing_everything_opens_nothing_that_is_unroutable() -> None:
    judged = policy(AERO_L2_ALLOWED_CIDRS="0.0.0.0/0")
    opened = [p for p in SPECIAL_PREFIXES if judged.denies_address(p.network[0], NOBODY) is None]
    assert {p.network for p in SPECIAL_PREFIXES if p not in opened} == {
        *(prefix.network for prefix in UNROUTABLE),
    }


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("[80, 443]", ((80, 80), (443, 443))),
        ('["80", "8000-8100"]', ((80, 80), (8000, 8100))),
        ('[80, "8000-8100"]', ((80, 80), (8000, 8100))),
        ('"80,443"', ((80, 80), (443, 443))),
        ("[]", ()),
        ('""', ()),
    ],
)
def test_port_lists_in_a_toml_file(written: str, meant: tuple[tuple[int, int], ...], tmp_path: Path) -> None:
    file = tmp_path / "aero-l2.toml"
    file.write_text(f"allowed_tcp_ports = {written}")
    got = load(gather(KEY, str(file))).settings
    assert got.allowed_tcp_ports == meant
    assert got.denied_tcp_ports == ()


def test_blank_variable_wins_over_the_ports_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "aero-l2.toml"
    file.write_text("allowed_tcp_ports = [80]")
    assert load(gather(KEY | {"AERO_L2_ALLOWED_TCP_PORTS": ""}, str(file))).settings.allowed_tcp_ports == ()


def test_lists_in_force_are_shown() -> None:
    def show(**variables: str) -> dict[str, str]:
        shown = (line.split(maxsplit=1) for line in lines(load(KEY | variables)))
        return {name: " ".join(rest.split()) for name, rest in shown}

    default = show()
    assert default["AERO_L2_DENIED_TCP_PORTS"] == "25 default"
    assert default["AERO_L2_ALLOWED_TCP_PORTS"] == "1-65535 default"
    assert default["AERO_L2_DENIED_UDP_PORTS"] == "(none) default"
    assert default["AERO_L2_DENIED_CIDRS"] == "(unset) default"
    got = show(AERO_L2_ALLOWED_TCP_PORTS="443,8000-8100", AERO_L2_ALLOWED_UDP_PORTS="")
    assert got["AERO_L2_ALLOWED_TCP_PORTS"].startswith("443,8000-8100 environment")
    assert got["AERO_L2_ALLOWED_UDP_PORTS"].startswith("(none) environment")
    assert got["AERO_L2_DENIED_TCP_PORTS"].startswith("(none) not set, nothing denied")


@pytest.mark.parametrize(
    ("allowed", "denied", "opened"),
    [
        ("0.0.0.0/0", "", ["169.254.169.254, 168.63.129.16, 100.100.100.200", "private networks"]),
        ("0.0.0.0/1,128.0.0.0/1", "", ["0.0.0.0/0", "private networks"]),
        (
            "0.0.0.0/0",
            "169.254.0.0/16,168.63.129.16,100.64.0.0/10,2001:db8::/32",
            ["0.0.0.0/0 opens all private networks"],
        ),
        ("169.254.0.0/16", "", ["cloud metadata (169.254.169.254)"]),
        ("168.63.129.16", "", ["cloud metadata (168.63.129.16)"]),
        ("192.168.50.0/24,8.0.0.0/7", "", ["8.0.0.0/7", "addresses of this host"]),
    ],
)
def test_prefix_that_opens_more_than_is_meant_gets_a_warning(
    allowed: str, denied: str, opened: list[str]
) -> None:
    environment = KEY | {"AERO_L2_ALLOWED_CIDRS": allowed, "AERO_L2_DENIED_CIDRS": denied}
    (warning,) = load(environment).warnings
    assert warning.startswith("AERO_L2_ALLOWED_CIDRS: ")
    assert warning.endswith("for example 192.168.50.0/24")
    assert [part for part in opened if part not in warning] == []


@pytest.mark.parametrize(
    ("allowed", "denied"),
    [("10.0.0.0/8,172.16.0.0/12,192.168.0.0/16", ""), ("0.0.0.0/0", "0.0.0.0/0"), ("", "0.0.0.0/0")],
)
def test_prefixes_of_private_networks_get_no_warning(allowed: str, denied: str) -> None:
    assert load(KEY | {"AERO_L2_ALLOWED_CIDRS": allowed, "AERO_L2_DENIED_CIDRS": denied}).warnings == ()
