"""Who may come in: modes and their secrets, origins, hosts, proxies, the endpoint that issues sessions."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from aero_l2.auth.keys import Keys
from aero_l2.auth.modes import AuthMode
from aero_l2.config import Settings, load
from aero_l2.errors import ConfigError

SECRET = "0123456789abcdef"
PAIR = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}
SESSION = {"AERO_L2_SESSION_SECRET": SECRET}
KEY = {"AERO_L2_API_KEY": SECRET}
JWT = {"AERO_L2_JWT_SECRET": SECRET}
NONE = {"AERO_L2_AUTH_MODE": "none"}


def settings(environment: dict[str, str]) -> Settings:
    return load(environment).settings


def faults(environment: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(environment)
    return caught.value.faults


def only_fault(environment: dict[str, str]) -> str:
    (fault,) = faults(environment)
    return fault


@pytest.mark.parametrize("unset", [{}, {"AERO_L2_AUTH_MODE": "  "}])
@pytest.mark.parametrize(
    ("secrets", "mode"),
    [
        (SESSION, AuthMode.SESSION_OR_TOKEN),
        (SESSION | KEY | JWT, AuthMode.SESSION_OR_TOKEN),
        ({"SESSION_SECRET": SECRET}, AuthMode.SESSION_OR_TOKEN),
        ({"AERO_GATEWAY_SESSION_SECRET": SECRET}, AuthMode.SESSION_OR_TOKEN),
        (KEY, AuthMode.TOKEN),
        ({"AERO_L2_TOKEN": SECRET}, AuthMode.TOKEN),
        (KEY | PAIR, AuthMode.TOKEN),
        (PAIR, AuthMode.NONE),
        (JWT | PAIR, AuthMode.NONE),
    ],
)
def test_secrets_choose_the_mode_where_it_is_unset(
    unset: dict[str, str], secrets: dict[str, str], mode: AuthMode
) -> None:
    assert settings(unset | secrets).auth_mode is mode


@pytest.mark.parametrize("missing", sorted(PAIR))
@pytest.mark.parametrize("instead", ["", "true", "yes", "11", "0"])
def test_no_auth_needs_both_set_to_exactly_1(missing: str, instead: str) -> None:
    assert missing in only_fault(PAIR | {missing: instead})


def test_without_mode_and_secret_it_says_what_to_set() -> None:
    fault = only_fault({})
    for name in ("AERO_L2_AUTH_MODE", "AERO_L2_API_KEY", "AERO_L2_SESSION_SECRET", *PAIR):
        assert name in fault


def test_jwt_secret_alone_chooses_no_mode() -> None:
    assert only_fault(JWT).endswith("set AERO_L2_AUTH_MODE=jwt")
    assert settings(JWT | {"AERO_L2_AUTH_MODE": "jwt"}).auth_mode is AuthMode.JWT


def test_no_auth_by_explicit_choice_starts() -> None:
    got = settings({"AERO_L2_AUTH_MODE": "NONE"})
    assert (got.auth_mode, got.open) == (AuthMode.NONE, False)


@pytest.mark.parametrize(
    ("mode", "given", "missing"),
    [
        ("session", {}, ["AERO_L2_SESSION_SECRET"]),
        ("cookie", KEY, ["AERO_L2_SESSION_SECRET"]),
        ("token", SESSION, ["AERO_L2_API_KEY"]),
        ("API_KEY", {}, ["AERO_L2_API_KEY"]),
        ("jwt", SESSION | KEY, ["AERO_L2_JWT_SECRET"]),
        ("cookie_or_jwt", SESSION, ["AERO_L2_JWT_SECRET"]),
        ("cookie_or_jwt", JWT, ["AERO_L2_SESSION_SECRET"]),
        ("cookie_or_jwt", {}, ["AERO_L2_SESSION_SECRET", "AERO_L2_JWT_SECRET"]),
        ("session_or_token", KEY, ["AERO_L2_SESSION_SECRET"]),
        ("cookie_or_api_key", {}, ["AERO_L2_SESSION_SECRET"]),
        ("session_and_token", SESSION, ["AERO_L2_API_KEY"]),
        ("cookie_and_api_key", {}, ["AERO_L2_SESSION_SECRET", "AERO_L2_API_KEY"]),
    ],
)
def test_mode_whose_secret_is_missing_is_refused(
    mode: str, given: dict[str, str], missing: list[str]
) -> None:
    got = faults(PAIR | given | {"AERO_L2_AUTH_MODE": mode})
    assert len(got) == len(missing)
    for fault, name in zip(got, missing, strict=True):
        assert fault.startswith(f"AERO_L2_AUTH_MODE={mode!r} needs ")
        assert name in fault


def test_session_or_token_does_without_a_key() -> None:
    got = settings(SESSION | {"AERO_L2_AUTH_MODE": "session_or_token"})
    assert (got.session_secrets, got.api_keys) == (Keys(SECRET.encode()), Keys())


def test_unknown_mode_is_refused_with_the_choices() -> None:
    fault = only_fault(PAIR | {"AERO_L2_AUTH_MODE": "nune"})
    assert fault.startswith("AERO_L2_AUTH_MODE='nune' is not known: choose one of none, session, token, jwt,")


@pytest.mark.parametrize(
    ("environment", "idle"),
    [
        (SESSION | KEY | {"AERO_L2_AUTH_MODE": "session"}, "AERO_L2_API_KEY"),
        (KEY | {"AERO_L2_AUTH_MODE": "token", "SESSION_SECRET": SECRET}, "SESSION_SECRET"),
        (KEY | NONE, "AERO_L2_API_KEY"),
        (JWT | PAIR, "AERO_L2_JWT_SECRET"),
        (KEY | {"AERO_L2_JWT_ISSUER": "gateway"}, "AERO_L2_JWT_ISSUER"),
    ],
)
def test_secret_that_the_mode_does_not_read_is_a_warning(environment: dict[str, str], idle: str) -> None:
    warning = load(environment).warnings[0]
    assert warning.startswith(f"{idle} has no effect: AERO_L2_AUTH_MODE is ")


def test_rules_are_made_of_the_settings() -> None:
    got = settings(
        SESSION
        | KEY
        | JWT
        | {"AERO_L2_JWT_AUDIENCE": "aero", "AERO_L2_JWT_ISSUER": "gateway", "AERO_L2_AUTH_MODE": "jwt"}
    )
    rules = got.auth_rules
    assert (rules.mode, rules.jwt, rules.audience, rules.issuer, rules.open) == (
        AuthMode.JWT,
        Keys(SECRET.encode()),
        "aero",
        "gateway",
        False,
    )
    assert (rules.session, rules.api_key) == (got.session_secrets, got.api_keys)


def test_origins_are_normalized_and_extra_ones_added() -> None:
    got = settings(
        NONE
        | {
            "AERO_L2_ALLOWED_ORIGINS": " HTTPS://Example.ORG:443/ ,, http://[::1]:80",
            "AERO_L2_ALLOWED_ORIGINS_EXTRA": ",http://localhost:5173,https://example.org,null",
        }
    )
    assert got.allowed_origins == ("https://example.org", "http://[::1]", "http://localhost:5173", "null")
    assert got.origin_rules.allowed == frozenset(got.allowed_origins)
    assert (got.origin_rules.any_valid, got.origin_rules.open) == (False, False)


def test_shared_name_of_origins_counts_where_ours_is_blank() -> None:
    shared = NONE | {"ALLOWED_ORIGINS": "https://shared.example"}
    assert settings(shared).allowed_origins == ("https://shared.example",)
    assert settings(shared | {"AERO_L2_ALLOWED_ORIGINS": " "}).allowed_origins == ("https://shared.example",)
    ours = settings(shared | {"AERO_L2_ALLOWED_ORIGINS": "https://ours.example"})
    assert ours.allowed_origins == ("https://ours.example",)


def test_star_admits_every_valid_origin() -> None:
    got = settings(NONE | {"AERO_L2_ALLOWED_ORIGINS": "*,https://a.example", "AERO_L2_OPEN": "1"})
    assert got.allowed_origins == ("*", "https://a.example")
    rules = got.origin_rules
    assert (rules.allowed, rules.any_valid, rules.open) == ({"https://a.example"}, True, True)


@pytest.mark.parametrize(
    "name", ["AERO_L2_ALLOWED_ORIGINS", "ALLOWED_ORIGINS", "AERO_L2_ALLOWED_ORIGINS_EXTRA"]
)
@pytest.mark.parametrize(
    "entry", ["example.org", "https://a.example/path", "ftp://a.example", "https://a b.example"]
)
def test_invalid_origin_refuses_to_start(name: str, entry: str) -> None:
    fault = only_fault(NONE | {name: f"https://fine.example,{entry}"})
    assert fault.startswith(f"{name}=")
    assert f"has {entry!r}, which is no Origin" in fault


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("AERO_L2_ALLOWED_ORIGINS", "https://*.example"),
        ("AERO_L2_ALLOWED_HOSTS", "*.example"),
        ("AERO_L2_ALLOWED_HOSTS", "*"),
    ],
)
def test_pattern_in_a_list_is_a_warning(name: str, entry: str) -> None:
    (warning,) = load(KEY | {name: entry}).warnings
    assert warning == f"{name}: {entry!r} is taken literally, there are no patterns"


def test_hosts_are_kept_in_lower_case() -> None:
    got = settings(NONE | {"AERO_L2_ALLOWED_HOSTS": "Proxy.Example.ORG:443, [::1]:8090 ,,proxy.example.org"})
    assert got.allowed_hosts == ("proxy.example.org:443", "[::1]:8090", "proxy.example.org")
    assert got.host_rules.allowed == got.allowed_hosts


@pytest.mark.parametrize("entry", ["https://a.example", "a b.example", "a.example:0", "::1"])
def test_invalid_host_refuses_to_start(entry: str) -> None:
    fault = only_fault(NONE | {"AERO_L2_ALLOWED_HOSTS": f"fine.example,{entry}"})
    assert f"has {entry!r}, which is no host" in fault


def test_named_proxies_are_trusted() -> None:
    got = settings(NONE | {"AERO_L2_TRUSTED_PROXIES": "10.1.0.0/16, 192.0.2.7,2001:db8::/32,10.1.0.0/16,::1"})
    assert got.trusted_proxies == tuple(
        ip_network(text) for text in ("10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32", "::1/128")
    )
    trust = got.proxy_trust
    assert (trust.client, trust.host, trust.proxies) == (True, False, got.trusted_proxies)


def test_proxies_of_which_only_the_host_is_believed() -> None:
    got = load(
        KEY
        | {
            "AERO_L2_TRUSTED_PROXIES": "10.0.0.0/8",
            "AERO_L2_TRUST_PROXY": "off",
            "AERO_L2_TRUST_PROXY_HOST": "On",
        }
    )
    trust = got.settings.proxy_trust
    assert (trust.client, trust.host) == (False, True)
    assert got.warnings == ()


@pytest.mark.parametrize("name", ["AERO_L2_TRUST_PROXY", "AERO_L2_TRUST_PROXY_HOST"])
def test_trust_in_whoever_connects_is_a_warning(name: str) -> None:
    (warning,) = load(KEY | {name: "yes"}).warnings
    assert warning.startswith(
        f"{name} believes whoever connects: name your proxies in AERO_L2_TRUSTED_PROXIES"
    )


@pytest.mark.parametrize("name", ["AERO_L2_TRUST_PROXY", "AERO_L2_TRUST_PROXY_HOST"])
@pytest.mark.parametrize(
    ("proxies", "prefix"),
    [
        ("10.0.0.1,0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("0.0.0.0/1,128.0.0.0/1", "0.0.0.0/0"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_trust_in_all_addresses_is_a_warning(name: str, proxies: str, prefix: str) -> None:
    (warning,) = load(KEY | {name: "yes", "AERO_L2_TRUSTED_PROXIES": proxies}).warnings
    assert warning.startswith(f"AERO_L2_TRUSTED_PROXIES has all of {prefix}, so it believes whoever connects")


def test_proxies_nobody_asks_for_are_a_warning() -> None:
    off = KEY | {"AERO_L2_TRUSTED_PROXIES": "10.0.0.0/8,::/0", "AERO_L2_TRUST_PROXY": "No"}
    assert load(off).warnings == (
        "AERO_L2_TRUSTED_PROXIES has no effect: AERO_L2_TRUST_PROXY='No' turns it off",
    )
    assert load(KEY | {"AERO_L2_TRUST_PROXY": "0"}).warnings == ()


LOOPBACK = {"AERO_L2_PROXY_LISTEN_ADDR": "127.0.0.1:8090"}
HOSTS = {"AERO_L2_ALLOWED_HOSTS": "vm.example"}


def test_whoever_asks_for_no_credentials_is_warned() -> None:
    by_mode, by_pair = (load(env | LOOPBACK | HOSTS).warnings for env in (NONE, PAIR))
    assert by_mode == ("nobody is asked for credentials: AERO_L2_AUTH_MODE is none",)
    assert by_pair == (
        "nobody is asked for credentials: AERO_L2_OPEN and AERO_L2_INSECURE_ALLOW_NO_AUTH are 1",
    )


@pytest.mark.parametrize(
    ("listen", "is_reached"),
    [
        *(("0.0.0.0:8090", True), ("[::]:8090", True), ("192.0.2.1:1", True), ("[fe80::1]:1", True)),
        *(("127.0.0.1:1", False), ("127.9.9.9:1", False), ("[::1]:1", False), ("localhost:1", False)),
    ],
)
def test_no_credentials_where_others_reach_it_is_a_warning(listen: str, is_reached: bool) -> None:
    warnings = load(NONE | HOSTS | {"AERO_L2_PROXY_LISTEN_ADDR": listen}).warnings
    found = [line for line in warnings if "can use this host's network without credentials" in line]
    assert len(found) == is_reached
    assert load(KEY | {"AERO_L2_PROXY_LISTEN_ADDR": listen}).warnings == ()


@pytest.mark.parametrize(
    ("environment", "is_open"),
    [
        (NONE, True),
        (NONE | HOSTS, False),
        (NONE | {"AERO_L2_OPEN": "1"}, False),
        (NONE | {"AERO_L2_ALLOWED_ORIGINS": "https://a.example"}, False),
        (KEY, False),
    ],
)
def test_names_that_others_may_point_here_are_a_warning(environment: dict[str, str], is_open: bool) -> None:
    found = [line for line in load(environment | LOOPBACK).warnings if "DNS rebinding" in line]
    assert len(found) == is_open
    assert all("AERO_L2_ALLOWED_HOSTS" in line for line in found)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("10.1.2.3/8", "write 10.0.0.0/8 or 10.1.2.3"),
        ("2001:db8::1/32", "write 2001:db8::/32 or 2001:db8::1"),
        ("proxy.example", "which is no prefix and no address"),
        ("10.1.2.3:80", "which is no prefix and no address"),
        ("10.0.0.0/33", "which is no prefix and no address"),
        ("fe80::1%eth0", "which is no prefix and no address"),
        ("10.0.0.0/8/8", "which is no prefix and no address"),
    ],
)
def test_invalid_proxy_refuses_to_start(entry: str, said: str) -> None:
    fault = only_fault(NONE | {"AERO_L2_TRUSTED_PROXIES": f"192.0.2.1,{entry}"})
    assert repr(entry) in fault
    assert said in fault


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("AERO_L2_TRUST_PROXY", "trust_proxy"),
        ("AERO_L2_TRUST_PROXY_HOST", "trust_proxy_host"),
        ("AERO_L2_CLOSE_ON_EXPIRY", "close_on_expiry"),
    ],
)
def test_other_switches_take_every_word_for_yes(name: str, field: str, value: str) -> None:
    assert getattr(settings(NONE | {name: value}), field) is True
    assert "is not a yes or no" in only_fault(NONE | {name: value + "?"})


ENDPOINT = {"AERO_L2_SESSION_ENDPOINT": "1"}


@pytest.mark.parametrize("mode", ["session", "session_or_token", "session_and_token", "cookie_or_jwt"])
def test_session_endpoint_starts_with_cookies_and_a_limit_per_address(mode: str) -> None:
    got = settings(
        SESSION | KEY | JWT | ENDPOINT | {"AERO_L2_AUTH_MODE": mode, "AERO_L2_MAX_CONNECTIONS_PER_IP": "4"}
    )
    assert got.session_endpoint
    assert (got.session_ttl_secs, got.sessions_per_minute_per_ip) == (3600, 30)


def test_session_endpoint_needs_a_limit_per_address() -> None:
    fault = only_fault(SESSION | ENDPOINT)
    assert fault.startswith("AERO_L2_SESSION_ENDPOINT='1' ")
    assert "AERO_L2_MAX_CONNECTIONS_PER_IP" in fault


@pytest.mark.parametrize("others", [KEY, NONE, PAIR, SESSION | JWT | {"AERO_L2_AUTH_MODE": "jwt"}])
def test_session_endpoint_needs_a_mode_that_takes_cookies(others: dict[str, str]) -> None:
    fault = only_fault(others | ENDPOINT | {"AERO_L2_MAX_CONNECTIONS_PER_IP": "4"})
    assert fault.startswith("AERO_L2_SESSION_ENDPOINT='1' issues cookies")
