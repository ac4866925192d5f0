"""deploy/production.env: accepted once it is filled in, refused with a clear line before."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aero_l2.config import load
from aero_l2.errors import ConfigError

FILE = Path(__file__).parents[2] / "deploy/production.env"
SITE = {
    "AERO_L2_ALLOWED_ORIGINS": "https://lab.example",
    "AERO_L2_ALLOWED_HOSTS": "lab.example",
    "AERO_L2_TRUSTED_PROXIES": "172.30.90.2",
    "AERO_L2_DENIED_CIDRS": "198.51.100.7,2001:db8::7",
}
SECRET = {"AERO_L2_SESSION_SECRET": "s3cret-of-the-gateway-0123456789"}


def values() -> dict[str, str]:
    """The file as compose, docker and systemd read it."""
    lines = [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
    found = dict(line.split("=", 1) for line in lines)
    assert len(found) == len(lines), "a setting stands there twice"
    return found


def test_filled_in_it_is_accepted_with_the_one_warning_that_it_tells_of() -> None:
    (warning,) = load(values() | SITE | SECRET).warnings
    assert warning.startswith("AERO_L2_IDLE_TIMEOUT_MS closes only tunnels whose client is gone")


def test_exactly_what_is_of_the_site_is_left_open() -> None:
    assert {name for name, value in values().items() if value.startswith("FILL-IN:")} == set(SITE)


@pytest.mark.parametrize("name", SITE)
def test_what_is_not_filled_in_is_refused_by_name(name: str) -> None:
    left = values()[name]
    with pytest.raises(ConfigError) as refused:
        load(values() | SITE | SECRET | {name: left})
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{name}=")
    assert left.split(",")[0] in line


def test_everything_left_open_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        load(values() | SECRET)
    assert {line.split("=")[0] for line in str(refused.value).splitlines()} == set(SITE)


def test_without_the_secret_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="AERO_L2_SESSION_SECRET"):
        load(values() | SITE)


def test_every_setting_says_why() -> None:
    paragraphs = [part for part in FILE.read_text().split("\n\n") if re.search(r"^[A-Z]", part, re.MULTILINE)]
    for part in paragraphs:
        *reasons, setting = part.strip().splitlines()
        assert all(line.startswith("# ") for line in reasons)
        assert reasons, setting
        assert re.fullmatch(r"[A-Z0-9_]+=\S+", setting), part


def test_only_web_time_and_quic_are_within_reach() -> None:
    settings = load(values() | SITE | SECRET).settings
    assert settings.allowed_tcp_ports == ((80, 80), (443, 443))
    assert settings.allowed_udp_ports == ((123, 123), (443, 443))
    assert not settings.allow_private_ips


def test_no_limit_is_switched_off() -> None:
    limits = {name: value for name, value in values().items() if "_MAX_" in name or name.endswith("_MS")}
    assert len(limits) > 10
    assert all(int(value) > 0 for value in limits.values())
