"""What people are shown: the reference of all settings, and those in force (`serve --check`)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aero_l2.config import THEMES, VARIABLES, gather, load, reference
from aero_l2.config.effective import lines
from aero_l2.config.names import SECRETS

PAGE = Path(__file__).parents[2] / "docs/settings.md"
SECRET = "0123456789abcdef"
NONE = {"AERO_L2_AUTH_MODE": "none"}


def shown(environment: dict[str, str], config: Path | None = None) -> dict[str, tuple[str, str]]:
    """Variable → value and origin."""
    rows = (
        re.split(" {2,}", line, maxsplit=2)
        for line in lines(load(gather(environment, str(config) if config else None, "127.0.0.1:0")))
    )
    return {name: (value, origin) for name, value, origin in rows}


@pytest.mark.parametrize("text", [reference.markdown(), reference.text()], ids=["markdown", "text"])
def test_reference_has_every_name(text: str) -> None:
    for variable in VARIABLES:
        assert all(name in text for name in variable.names)
    assert all(theme.title in text for theme in THEMES)
    assert text.endswith("\n")


def test_page_says_which_secrets_there_are() -> None:
    mains = {name for name in SECRETS if not name.endswith("_PREVIOUS")}
    prose = PAGE.read_text().partition("## Reference")[0]
    assert all(f"`{name}`" in prose for name in mains)


def test_every_setting_in_force_is_shown_once() -> None:
    names = [line.split(" ")[0] for line in lines(load(NONE))]
    assert names == [v.name for v in VARIABLES if v.field != "allowed_origins_extra"]


def test_values_are_shown_as_they_apply_and_with_their_origin(tmp_path: Path) -> None:
    config = tmp_path / "aero-l2.toml"
    config.write_text('max_connections = 7\nallowed_origins = ["HTTPS://A.example/"]\ndns_a = ["B.=1.2.3.4"]')
    got = shown(
        {
            "SESSION_SECRET": SECRET,
            "AERO_L2_SESSION_SECRET_PREVIOUS": f"{SECRET}1\n{SECRET}2",
            "AERO_L2_API_KEY": "short",
            "AERO_L2_ALLOWED_ORIGINS_EXTRA": "null",
            "AERO_L2_TRUSTED_PROXIES": "::1,10.0.0.0/8",
            "AERO_L2_MAX_FRAME_SIZE": "01600",
            "AERO_L2_TCP_FORWARD": "10.0.2.2:80=Web.lan.:81",
            "AERO_L2_PROXY_GIT_SHA": "a\x1bb",
        },
        config,
    )
    expected = {
        "AERO_L2_PROXY_LISTEN_ADDR": ("127.0.0.1:0", "command line"),
        "AERO_L2_AUTH_MODE": ("session_or_token", "not set, chosen by the secrets"),
        "AERO_L2_SESSION_SECRET": ("(set, 16 bytes, 2 previous)", "environment: SESSION_SECRET"),
        "AERO_L2_API_KEY": ("(set, under 16 bytes)", "environment: AERO_L2_API_KEY"),
        "AERO_L2_JWT_SECRET": ("(unset)", "default"),
        "AERO_L2_ALLOWED_ORIGINS": (
            "https://a.example,null",
            f"file: allowed_origins in {config} and environment: AERO_L2_ALLOWED_ORIGINS_EXTRA",
        ),
        "AERO_L2_TRUSTED_PROXIES": ("::1/128,10.0.0.0/8", "environment: AERO_L2_TRUSTED_PROXIES"),
        "AERO_L2_TRUST_PROXY": ("1", "not set, turned on by AERO_L2_TRUSTED_PROXIES"),
        "AERO_L2_MAX_CONNECTIONS": ("7", f"file: max_connections in {config}"),
        "AERO_L2_MAX_FRAME_PAYLOAD": ("1600", "environment: AERO_L2_MAX_FRAME_SIZE"),
        "AERO_L2_TCP_FORWARD": ("10.0.2.2:80=web.lan:81", "environment: AERO_L2_TCP_FORWARD"),
        "AERO_L2_DNS_A": ("b=1.2.3.4", f"file: dns_a in {config}"),
        "AERO_L2_PROXY_GIT_SHA": (r"'a\x1bb'", "environment: AERO_L2_PROXY_GIT_SHA"),
        "AERO_L2_OPEN": ("0", "default"),
    }
    assert {name: got[name] for name in expected} == expected
