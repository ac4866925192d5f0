"""The default egress policy, judged at the edges of every prefix and against the standard library."""

from dataclasses import FrozenInstanceError
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.policy.egress import HOST_ADDRESS, EgressPolicy
from aero_l2.policy.prefixes import ALWAYS_DENIED, SPECIAL_PREFIXES

POLICY = EgressPolicy()
NOBODY: frozenset[IPv4Address] = frozenset()

PROMISED = (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
    "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 "
    "169.254.169.254/32 168.63.129.16/32 100.100.100.200/32"
)
ALWAYS = (
    "0.0.0.0/8 127.0.0.0/8 224.0.0.0/4 240.0.0.0/4 169.254.169.254/32 168.63.129.16/32 100.100.100.200/32 "
    "10.0.2.0/24 10.0.3.0/24 255.255.255.255/32"
)


def _networks(text: str) -> list[IPv4Network]:
    return [IPv4Network(item) for item in text.split()]


def _denied(address: IPv4Address) -> bool:
    return POLICY.denies_address(address, NOBODY) is not None


@pytest.mark.parametrize("network", _networks(PROMISED), ids=str)
def test_first_and_last_address_of_a_prefix_are_denied(network: IPv4Network) -> None:
    assert _denied(network[0])
    assert _denied(network[-1])


@pytest.mark.parametrize("network", POLICY.special_networks, ids=str)
def test_neighbours_of_a_denied_network_are_allowed(network: IPv4Network) -> None:
    edges = (int(network[0]) - 1, int(network[-1]) + 1)
    for value in edges:
        if not 0 <= value <= 0xFFFFFFFF:
            continue
        address = IPv4Address(value)
        assert _denied(address) == any(address in other for other in POLICY.special_networks)


@given(st.integers(0, 0xFFFFFFFF).map(IPv4Address))
def test_lookup_agrees_with_the_networks(address: IPv4Address) -> None:
    assert _denied(address) == any(address in network for network in _networks(PROMISED))


def test_networks_are_sorted_and_disjoint() -> None:
    networks = POLICY.special_networks
    assert list(networks) == sorted(networks)
    assert not any(a.overlaps(b) for a, b in pairwise(networks))
    assert set(_networks("100.64.0.0/10 168.63.129.16/32 172.16.0.0/12 224.0.0.0/3")) <= set(networks)


def test_public_address_is_allowed() -> None:
    assert POLICY.denies_address(IPv4Address("192.88.98.1"), NOBODY) is None


def test_public_address_of_the_host_is_denied() -> None:
    address = IPv4Address("11.22.33.44")
    assert POLICY.denies_address(address, frozenset({address})) == HOST_ADDRESS


def test_the_narrowest_prefix_names_the_reason() -> None:
    assert "metadata" in (POLICY.denies_address(IPv4Address("169.254.169.254"), NOBODY) or "")
    assert POLICY.denies_address(IPv4Address("169.254.169.253"), NOBODY) == "link local (RFC 3927)"
    assert "NAT" in (POLICY.denies_address(IPv4Address("10.0.3.2"), NOBODY) or "")


def test_what_stays_denied_with_private_addresses_allowed() -> None:
    assert {prefix.network for prefix in ALWAYS_DENIED} == set(_networks(ALWAYS))
    policy = EgressPolicy(special=ALWAYS_DENIED)
    assert policy.denies_address(IPv4Address("192.168.1.1"), NOBODY) is None
    assert policy.denies_address(IPv4Address("127.0.0.1"), NOBODY) is not None
    assert policy.denies_address(IPv4Address("10.0.3.2"), NOBODY) is not None


def test_every_prefix_names_its_source() -> None:
    assert all(prefix.use and prefix.source for prefix in SPECIAL_PREFIXES)


def test_mail_is_denied_by_default() -> None:
    assert POLICY.denied_tcp_ports == ((25, 25),)
    assert POLICY.denied_udp_ports == ()


def test_policy_is_a_value() -> None:
    assert EgressPolicy() == EgressPolicy()
    assert hash(EgressPolicy()) == hash(EgressPolicy())
    with pytest.raises(FrozenInstanceError):
        POLICY.denied_tcp_ports = ()  # type: ignore[misc]


@pytest.mark.parametrize("bad", [(2, 1), (0, 5), (-1, 5), (1, 65536)])
def test_port_range_that_is_none_is_refused(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not a port range"):
        EgressPolicy(denied_udp_ports=(bad,))
