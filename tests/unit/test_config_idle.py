"""Warnings about settings of the network that do nothing."""

import pytest

from aero_l2.config import load

KEY = {"AERO_L2_API_KEY": "k" * 32}


def warnings(**variables: str) -> list[str]:
    return list(load(KEY | {f"AERO_L2_{name}": value for name, value in variables.items()}).warnings)


@pytest.mark.parametrize("name", ["ALLOWED_DOMAINS", "BLOCKED_DOMAINS", "DENIED_CIDRS", "ALLOWED_CIDRS"])
def test_list_of_separators_alone_is_a_warning(name: str) -> None:
    assert warnings(**{name: " , "}) == [f"AERO_L2_{name}=',' lists nothing, so it counts as unset"]
    assert warnings(**{name: " "}) == []


@pytest.mark.parametrize("rate", ["MAX_BYTES_PER_SECOND", "MAX_PACKETS_PER_SECOND"])
def test_burst_without_a_rate_is_a_warning(rate: str) -> None:
    said = f"AERO_L2_{rate}_BURST has no effect: AERO_L2_{rate} is not set"
    assert warnings(**{f"{rate}_BURST": "100000"}) == [said]
    assert warnings(**{f"{rate}_BURST": "100000", rate: "50000"}) == []


def test_allowed_domain_that_is_blocked_is_a_warning() -> None:
    lists = {
        "ALLOWED_DOMAINS": "a.shop.test,other.test,test.example",
        "BLOCKED_DOMAINS": "shop.test,b.other.test",
    }
    said = "AERO_L2_ALLOWED_DOMAINS: a.shop.test has no effect: AERO_L2_BLOCKED_DOMAINS blocks shop.test"
    assert warnings(**lists) == [said]


def test_forward_whose_port_is_refused_is_a_warning() -> None:
    forward = {"TCP_FORWARD": "10.0.2.2:8080=127.0.0.1:80,10.0.2.2:443=127.0.0.1:443"}
    closed = "AERO_L2_TCP_FORWARD: 10.0.2.2:8080=127.0.0.1:80 has no effect"
    said = closed + ": AERO_L2_{}_TCP_PORTS refuses port 8080"
    assert warnings(**forward) == []
    assert warnings(**forward, ALLOWED_TCP_PORTS="443") == [said.format("ALLOWED")]
    assert warnings(**forward, DENIED_TCP_PORTS="8000-9000") == [said.format("DENIED")]


def test_idle_time_that_answers_to_pings_always_reset_is_a_warning() -> None:
    said = (
        "AERO_L2_IDLE_TIMEOUT_MS closes only tunnels whose client is gone: the others answer the PINGs of "
        "AERO_L2_PING_INTERVAL_MS, and answers are messages"
    )
    assert warnings(IDLE_TIMEOUT_MS="60000", PING_INTERVAL_MS="20000") == [said]
    assert warnings(IDLE_TIMEOUT_MS="20000", PING_INTERVAL_MS="20000") == []
    assert warnings(IDLE_TIMEOUT_MS="60000") == []


def test_hour_of_sessions_that_nobody_has_is_a_warning() -> None:
    said = (
        "AERO_L2_MAX_BYTES_PER_PRINCIPAL_HOUR has no effect: with authentication by token no tunnel has a "
        "session id"
    )
    assert warnings(MAX_BYTES_PER_PRINCIPAL_HOUR="1") == [said]
    assert warnings(MAX_BYTES_PER_PRINCIPAL_HOUR="1", SESSION_SECRET="s" * 32) == []
