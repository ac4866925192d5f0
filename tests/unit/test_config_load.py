"""Settings out of an environment: every fault named at once, nothing silently ignored."""

from __future__ import annotations

import dataclasses
import os
from ipaddress import IPv4Address

import pytest

from aero_l2.config import VARIABLES, ForwardRule, ListenAddress, Settings, load
from aero_l2.config.forwards import MAX_FORWARDS
from aero_l2.errors import ConfigError
from netns.spec import Forward, SegmentSpec

PAIR = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}
KEY = {"AERO_L2_API_KEY": "0123456789abcdef"}


def settings(**variables: str) -> Settings:
    return load(PAIR | variables).settings


def faults(environment: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(environment)
    return caught.value.faults


def only_fault(**variables: str) -> str:
    (fault,) = faults(PAIR | variables)
    return fault


def test_defaults() -> None:
    got = settings()
    assert got.listen == ListenAddress("0.0.0.0", 8090)
    assert (got.max_connections, got.max_frame_payload, got.max_control_payload) == (64, 2048, 256)
    assert (got.shutdown_grace_ms, got.send_stall_timeout_ms) == (3000, 10000)
    assert (got.dns_lookup_timeout_ms, got.dns_default_ttl_secs, got.dns_max_ttl_secs) == (2000, 60, 300)
    assert (got.max_pending_dns, got.max_tcp_connections) == (1024, 1024)
    assert (got.max_udp_flows, got.udp_flow_idle_timeout_ms) == (256, 60000)
    assert (got.git_sha, got.built_at, got.user, got.receive_path) == ("dev", "", None, "own")
    assert (got.forwards, got.dns_a) == ((), ())


def test_every_variable_fills_one_field() -> None:
    fields = [variable.field for variable in VARIABLES]
    assert sorted(fields) == sorted(
        [*(field.name for field in dataclasses.fields(Settings)), "allowed_origins_extra"]
    )
    names = [name for variable in VARIABLES for name in variable.names]
    assert len(names) == len(set(names))
    assert all(variable.help for variable in VARIABLES)


def test_blank_means_unset() -> None:
    meaning_it = [variable for variable in VARIABLES if not variable.blank_is_empty]
    blanks = {name: "  " for variable in meaning_it for name in variable.names if name not in PAIR}
    assert load(PAIR | blanks).settings == settings()


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        (" 10.1.2.3:80 ", "10.1.2.3", 80),
        ("[::1]:8090", "::1", 8090),
        ("localhost:1", "localhost", 1),
    ],
)
def test_listen_address(value: str, host: str, port: int) -> None:
    assert settings(AERO_L2_PROXY_BIND_ADDR=value).listen == ListenAddress(host, port)


@pytest.mark.parametrize("value", ["8090", "example.org:80", "1.2.3:80", "::1:80", "[::1]", "1.2.3.4:65536"])
def test_bad_listen_address_is_refused(value: str) -> None:
    assert only_fault(AERO_L2_PROXY_LISTEN_ADDR=value).startswith(f"AERO_L2_PROXY_LISTEN_ADDR={value!r} ")


def test_name_wins_over_alias() -> None:
    got = settings(AERO_L2_MAX_FRAME_PAYLOAD="1600", AERO_L2_MAX_FRAME_SIZE="1700")
    assert got.max_frame_payload == 1600
    assert settings(AERO_L2_MAX_FRAME_PAYLOAD="", AERO_L2_MAX_FRAME_SIZE="1700").max_frame_payload == 1700


def test_zero_payload_limit_means_default() -> None:
    assert settings(AERO_L2_MAX_FRAME_PAYLOAD="0").max_frame_payload == 2048
    assert settings(AERO_L2_MAX_CONTROL_PAYLOAD="0").max_control_payload == 256
    assert settings(AERO_L2_MAX_CONNECTIONS="0").max_connections == 0


@pytest.mark.parametrize("value", ["abc", "-", "1.5", "1_000", "+5", "٣", "0x10", "--1"])
def test_number_that_does_not_parse_is_refused(value: str) -> None:
    fault = only_fault(AERO_L2_MAX_CONNECTIONS=value)
    fix = "give one from 0 to 1000000, 0 = no limit"
    assert fault == f"AERO_L2_MAX_CONNECTIONS={value!r} is not a whole number: {fix}"


@pytest.mark.parametrize("value", ["-1", "-0", "9" * 30, "9" * 5000])
def test_number_far_out_of_range_is_a_number(value: str) -> None:
    fault = only_fault(AERO_L2_MAX_CONNECTIONS=value)
    fix = "give a whole number from 0 to 1000000, 0 = no limit"
    assert fault == f"AERO_L2_MAX_CONNECTIONS={value!r} is out of range: {fix}"


NUMBERS = {variable.name: variable.number for variable in VARIABLES if variable.number is not None}
RANGES = {
    "AERO_L2_AUDIT_MAX_BYTES": (0, 10**15),
    "AERO_L2_AUDIT_MAX_FILES": (1, 1000),
    "AERO_L2_CAPTURE_MAX_BYTES": (0, 10**15),
    "AERO_L2_CAPTURE_FLUSH_INTERVAL_MS": (0, 86_400_000),
    "AERO_L2_CAPTURE_MAX_FILES": (0, 1_000_000),
    "AERO_L2_CAPTURE_SNAPLEN": (0, 65_535),
    "AERO_L2_MAX_CONNECTIONS": (0, 1_000_000),
    "AERO_L2_MAX_CONNECTIONS_PER_SESSION": (0, 1_000_000),
    "AERO_L2_MAX_CONNECTIONS_PER_IP": (0, 1_000_000),
    "AERO_L2_MAX_UPGRADES_PER_MINUTE_PER_IP": (0, 1_000_000),
    "AERO_L2_MAX_SETUPS": (0, 1_000_000),
    "AERO_L2_MAX_WAITING_SETUPS": (0, 1_000_000),
    "AERO_L2_MAX_LOOP_LAG_MS": (0, 60_000),
    "AERO_L2_UPGRADE_TIMEOUT_MS": (100, 600_000),
    "AERO_L2_MAX_HEADER_BYTES": (1024, 65_536),
    "AERO_L2_SESSION_TTL_SECS": (60, 2_592_000),
    "AERO_L2_MAX_SESSIONS_PER_MINUTE_PER_IP": (1, 6000),
    "AERO_L2_MAX_FRAME_PAYLOAD": (64, 65_535),
    "AERO_L2_MAX_CONTROL_PAYLOAD": (8, 65_535),
    "AERO_L2_DRAIN_MS": (0, 86_400_000),
    "AERO_L2_SHUTDOWN_GRACE_MS": (0, 86_400_000),
    "AERO_L2_SEND_STALL_TIMEOUT_MS": (0, 86_400_000),
    "AERO_L2_MAX_BYTES_PER_CONNECTION": (0, 10**15),
    "AERO_L2_MAX_BYTES_PER_PRINCIPAL_HOUR": (0, 10**15),
    "AERO_L2_MAX_FRAMES_PER_SECOND": (0, 1_000_000),
    "AERO_L2_MAX_SESSION_SECONDS": (0, 31_536_000),
    "AERO_L2_IDLE_TIMEOUT_MS": (0, 86_400_000),
    "AERO_L2_PING_INTERVAL_MS": (0, 86_400_000),
    "AERO_L2_RESUME_SECONDS": (0, 3600),
    "AERO_L2_DNS_LOOKUP_TIMEOUT_MS": (1, 86_400_000),
    "AERO_L2_DNS_DEFAULT_TTL_SECS": (1, 2**31 - 1),
    "AERO_L2_DNS_MAX_TTL_SECS": (1, 2**31 - 1),
    "AERO_L2_STACK_MAX_PENDING_DNS": (0, 1_000_000),
    "AERO_L2_STACK_MAX_DNS_CACHE_ENTRIES": (0, 1_000_000),
    "AERO_L2_STACK_MAX_TCP_CONNECTIONS": (0, 1_000_000),
    "AERO_L2_MAX_TCP_MEMORY_BYTES": (1_048_576, 10**15),
    "AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL": (0, 1_000_000),
    "AERO_L2_MAX_NEW_FLOWS_PER_SECOND": (0, 1_000_000),
    "AERO_L2_TCP_CONNECT_TIMEOUT_MS": (1, 86_400_000),
    "AERO_L2_UDP_FLOW_IDLE_TIMEOUT_MS": (1, 86_400_000),
    "AERO_L2_MAX_BYTES_PER_SECOND": (10_000, 4_000_000_000),
    "AERO_L2_MAX_BYTES_PER_SECOND_BURST": (65_536, 4_000_000_000),
    "AERO_L2_MAX_PACKETS_PER_SECOND": (0, 1_000_000),
    "AERO_L2_MAX_PACKETS_PER_SECOND_BURST": (0, 1_000_000),
}


def test_every_number_has_the_range_promised() -> None:
    assert {name: (number.low, number.high) for name, number in NUMBERS.items()} == RANGES


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "AERO_L2_CAPTURE_MAX_FILES"),
        ({"AERO_L2_CAPTURE_MAX_BYTES": "0"}, "AERO_L2_CAPTURE_MAX_FILES and AERO_L2_CAPTURE_MAX_BYTES"),
        ({"AERO_L2_CAPTURE_MAX_FILES": "9"}, ""),
        ({"AERO_L2_CAPTURE_ON_DEMAND": "1"}, ""),
    ],
)
def test_captures_that_could_fill_a_disk_are_a_warning(given: dict[str, str], missing: str) -> None:
    said = [w for w in load(PAIR | {"AERO_L2_CAPTURE_DIR": "/captures"} | given).warnings if "fill" in w]
    assert said == ([f"AERO_L2_CAPTURE_DIR may fill its disk: set {missing}"] if missing else [])


@pytest.mark.parametrize("name", sorted(RANGES))
def test_bounds_of_a_number_are_accepted_and_one_beyond_is_refused(name: str) -> None:
    low, high = RANGES[name]
    for value in (low, high):
        settings(**{name: str(value)})
    for value in (*([low - 1] if low > 1 else []), high + 1):
        assert "is out of range: give a whole number from" in only_fault(**{name: str(value)})


def test_namespaces_can_be_made_of_every_accepted_value() -> None:
    """Flow limits and forwards at their bounds pass the checks that netd makes of them."""
    entries = ",".join(f"198.51.100.7:{port}=127.0.0.1:80" for port in range(1, MAX_FORWARDS + 1))
    for end in (0, 1):
        got = settings(
            AERO_L2_STACK_MAX_TCP_CONNECTIONS=str(RANGES["AERO_L2_STACK_MAX_TCP_CONNECTIONS"][end]),
            AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL=str(RANGES["AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL"][end]),
            AERO_L2_UDP_FLOW_IDLE_TIMEOUT_MS=str(RANGES["AERO_L2_UDP_FLOW_IDLE_TIMEOUT_MS"][end]),
            AERO_L2_MAX_BYTES_PER_SECOND=str(RANGES["AERO_L2_MAX_BYTES_PER_SECOND"][end]),
            AERO_L2_MAX_BYTES_PER_SECOND_BURST=str(RANGES["AERO_L2_MAX_BYTES_PER_SECOND_BURST"][end]),
            AERO_L2_TCP_FORWARD=entries,
        )
        SegmentSpec(
            forwards=tuple(
                Forward(rule.protocol, rule.address, rule.port, IPv4Address("127.0.0.1"), rule.target_port)
                for rule in got.forwards
            ),
            max_tcp_flows=got.max_tcp_connections,
            max_udp_flows=got.max_udp_flows,
            udp_idle_s=-(-got.udp_flow_idle_timeout_ms // 1000),
            max_bytes_per_second=got.max_bytes_per_second,
            bytes_burst=got.bytes_burst,
        )


@pytest.mark.parametrize(
    ("given", "burst"),
    [
        ({}, 131_072),
        ({"AERO_L2_MAX_BYTES_PER_SECOND": "50000"}, 131_072),
        ({"AERO_L2_MAX_BYTES_PER_SECOND": "12500000"}, 1_250_000),
        ({"AERO_L2_MAX_BYTES_PER_SECOND_BURST": "70000", "AERO_L2_MAX_BYTES_PER_SECOND": "9999999"}, 70_000),
        ({"AERO_L2_MAX_BYTES_PER_SECOND_BURST": "00"}, 131_072),
    ],
)
def test_burst_of_bytes_is_a_tenth_of_a_second_and_takes_a_large_packet(
    given: dict[str, str], burst: int
) -> None:
    assert settings(**given).bytes_burst == burst


def test_rate_that_looks_like_megabits_is_refused() -> None:
    fix = "give a whole number from 10000 to 4000000000, 0 = no limit"
    fault = only_fault(AERO_L2_MAX_BYTES_PER_SECOND="100")
    assert fault == f"AERO_L2_MAX_BYTES_PER_SECOND='100' is out of range: {fix} (bytes: 10 MB = 10000000)"


def test_forwards_of_both_protocols_share_one_limit() -> None:
    half = [f"198.51.100.7:{port}=127.0.0.1:80" for port in range(1, 130)]
    assert (
        len(
            settings(
                AERO_L2_TCP_FORWARD=",".join(half[:128]), AERO_L2_UDP_FORWARD=",".join(half[:128])
            ).forwards
        )
        == 256
    )
    fault = only_fault(AERO_L2_TCP_FORWARD=",".join(half[:128]), AERO_L2_UDP_FORWARD=",".join(half))
    assert fault == "AERO_L2_TCP_FORWARD and AERO_L2_UDP_FORWARD have 257 entries: keep to 256 together"


def test_metrics_and_tunnels_do_not_share_a_port() -> None:
    both = {"AERO_L2_PROXY_LISTEN_ADDR": "127.0.0.1:8090", "AERO_L2_METRICS_ADDR": "127.0.0.1:8090"}
    fault = only_fault(**both)
    assert fault.startswith("AERO_L2_METRICS_ADDR='127.0.0.1:8090' is where tunnels are served: ")
    settings(**both | {"AERO_L2_METRICS_ADDR": "127.0.0.1:9190"})
    settings(AERO_L2_PROXY_LISTEN_ADDR="127.0.0.1:0", AERO_L2_METRICS_ADDR="127.0.0.1:0")


def test_static_names_are_limited_to_what_fits_an_answer() -> None:
    entries = [f"a=198.51.{i // 256}.{i % 256}" for i in range(1025)]
    assert len(settings(AERO_L2_DNS_A=",".join(entries[:1024])).dns_a) == 1024
    assert "1025 entries" in only_fault(AERO_L2_DNS_A=",".join(entries))


def test_all_faults_are_reported_together() -> None:
    got = faults(
        {
            "AERO_L2_MAX_CONNECTIONS": "x",
            "AERO_L2_LOG_LEVEL": "loud\nand clear",
            "AERO_L2_TRUST_PROXY": "perhaps",
            "AERO_L2_ALLOWED_ORIGINS": "example.org",
        }
    )
    assert [fault.split("=")[0].split(" ")[0] for fault in got] == [
        "AERO_L2_ALLOWED_ORIGINS",
        "AERO_L2_TRUST_PROXY",
        "AERO_L2_MAX_CONNECTIONS",
        "AERO_L2_LOG_LEVEL",
        "AERO_L2_AUTH_MODE",
    ]
    assert all("\n" not in fault for fault in got)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AERO_L2_CAPTURE_DIR", " "),
        ("AERO_L2_MAX_FRAMES_PER_SECOND", "0"),
        ("AERO_L2_ALLOW_PRIVATE_IPS", "false"),
        ("AERO_L2_WS_SEND_BUFFER", "65536"),
        ("AERO_L2_CAPTURE_MAX_BYTES", "1000"),
    ],
)
def test_what_asks_for_nothing_is_accepted(name: str, value: str) -> None:
    assert load(KEY | {name: value}).warnings == ()


def test_compatible_variable_that_does_not_parse_is_refused() -> None:
    assert "is not a whole number" in only_fault(AERO_L2_TCP_SEND_BUFFER="big")
    assert "is not a yes or no" in only_fault(AERO_L2_ALLOW_PRIVATE_IPS="maybe")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("AERO_L2_MAX_CONECTIONS", "AERO_L2_MAX_CONNECTIONS"),
        ("AERO_L2_ALOWED_ORIGINS", "AERO_L2_ALLOWED_ORIGINS"),
        ("AERO_L2_ALLOWED_HOST", "AERO_L2_ALLOWED_HOSTS"),
        ("AERO_L2_SESION_SECRET", "AERO_L2_SESSION_SECRET"),
        ("AERO_L2_SESSION_SECERT_FILE", "AERO_L2_SESSION_SECRET_FILE"),
        ("AERO_L2_LISTEN_ADDR", "AERO_L2_PROXY_LISTEN_ADDR"),
        ("AERO_L2_max_connections", "AERO_L2_MAX_CONNECTIONS"),
        ("AERO_L2_DENIED_DOMAINS", "AERO_L2_BLOCKED_DOMAINS"),
        ("AERO_L2_MAX_BYTES_PER_HOUR", "AERO_L2_MAX_BYTES_PER_PRINCIPAL_HOUR"),
        ("AERO_L2_DNS_UPSTREAMS", "AERO_L2_DNS_SERVERS"),
    ],
)
def test_unknown_variable_is_a_warning_with_the_nearest_name(wrong: str, right: str) -> None:
    warnings = load(KEY | {wrong: "5", "PATH": "/bin"}).warnings
    assert warnings == (f"{wrong} is not a setting, did you mean {right}?",)


@pytest.mark.parametrize(
    "name",
    [
        *("FOO", "FOOBAR", "TLS_CERT", "TLS_KEY", "SECRET", "PORT", ""),
        *("OPNE", "OPENED", "INSECURE_ALLOW_NO_AUHT", "INSECURE_ALLOW_NOAUTH"),
    ],
)
def test_unknown_variable_near_none_is_a_warning_with_where_they_are_listed(name: str) -> None:
    warnings = load(KEY | {f"AERO_L2_{name}": "5"}).warnings
    assert warnings == (f"AERO_L2_{name} is not a setting: `aero-l2 settings` lists all there are",)


@pytest.mark.parametrize(
    ("former", "name", "value"),
    [
        ("AERO_L2_PROXY_BIND_ADDR", "AERO_L2_PROXY_LISTEN_ADDR", "127.0.0.1:1"),
        ("AERO_L2_MAX_FRAME_SIZE", "AERO_L2_MAX_FRAME_PAYLOAD", "1600"),
        ("AERO_L2_MAX_TUNNELS_PER_SESSION", "AERO_L2_MAX_CONNECTIONS_PER_SESSION", "3"),
    ],
)
def test_former_name_works_and_warns(former: str, name: str, value: str) -> None:
    loaded = load(KEY | {former: value})
    assert loaded.settings == load(KEY | {name: value}).settings
    assert loaded.warnings == (f"{former} is deprecated, use {name}",)
    assert load(KEY | {former: " "}).warnings == ()


@pytest.mark.parametrize("name", ["VERSION", "GIT_SHA", "BUILD_TIMESTAMP", "ALLOWED_ORIGINS"])
def test_names_shared_with_other_programs_do_not_warn(name: str) -> None:
    assert load(KEY | {name: "https://a.example"}).warnings == ()


def test_names_of_the_supervisor_do_not_warn() -> None:
    internal = {"AERO_L2_CONTROL_FD": "3", "AERO_L2_SETTINGS_FD": "4"}
    assert load(KEY | internal).warnings == ()


@pytest.mark.parametrize("value", ["true", "yes", "2", "11"])
def test_switch_that_is_not_exactly_1_is_off_and_says_so(value: str) -> None:
    loaded = load(KEY | {"AERO_L2_OPEN": value})
    assert loaded.settings.open is False
    assert loaded.warnings == ("AERO_L2_OPEN is not exactly 1, so it counts as unset",)


def test_value_that_is_no_text_is_refused() -> None:
    assert "is not UTF-8" in only_fault(AERO_L2_PROXY_GIT_SHA=os.fsdecode(b"\xff"))


def test_forwards() -> None:
    got = settings(
        AERO_L2_TCP_FORWARD="10.0.2.2:8080=127.0.0.1:80, 198.51.100.100:22=build.internal:2222,",
        AERO_L2_UDP_FORWARD="10.0.2.2:8080=192.168.1.9:81",
    )
    assert got.forwards == (
        ForwardRule("tcp", IPv4Address("10.0.2.2"), 8080, IPv4Address("127.0.0.1"), 80),
        ForwardRule("tcp", IPv4Address("198.51.100.100"), 22, "build.internal", 2222),
        ForwardRule("udp", IPv4Address("10.0.2.2"), 8080, IPv4Address("192.168.1.9"), 81),
    )


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("10.0.2.2:80", "without '='"),
        ("10.0.2.2=127.0.0.1:80", "has no port"),
        ("10.0.2.2:80=127.0.0.1", "has no port"),
        ("10.0.2.2:0=127.0.0.1:80", "for a port"),
        ("10.0.2.2:80=127.0.0.1:65536", "for a port"),
        ("host:80=127.0.0.1:80", "is no IPv4 address"),
        ("10.0.2.2:80=[::1]:80", "IPv6"),
        ("10.0.2.2:80=::1:80", "IPv6"),
        ("10.0.2.2:80=fe80::1", "IPv6"),
        ("10.0.2.2:80=127.0.0.2:80", "not 127.0.0.1"),
        ("10.0.2.2:80=0.0.0.0:80", "nothing answers"),
        ("10.0.2.2:80=224.0.0.1:80", "nothing answers"),
        ("10.0.2.2:80=255.255.255.255:80", "nothing answers"),
        ("10.0.2.2:80=256.1.1.1:80", "is no IPv4 address"),
        ("10.0.2.2:80=bad host:80", "is no host name"),
        ("10.0.2.2:53=127.0.0.1:53", "gateway's own"),
        ("10.0.2.2:67=127.0.0.1:67", "gateway's own"),
        ("127.0.0.1:80=127.0.0.1:80", "cannot dial"),
        ("10.0.2.100:80=127.0.0.1:80", "nobody but the gateway answers: use 10.0.2.2 or"),
        ("10.0.2.15:80=127.0.0.1:80", "nobody but the gateway answers"),
        ("10.0.3.2:80=127.0.0.1:80", "is the proxy's own"),
        ("10.0.2.2:80=127.0.0.1:80,10.0.2.2:80=127.0.0.1:81", "twice"),
    ],
)
def test_bad_forward_is_refused(value: str, why: str) -> None:
    for name in ("AERO_L2_TCP_FORWARD", "AERO_L2_UDP_FORWARD"):
        fault = only_fault(**{name: value})
        assert fault.startswith(f"{name}=")
        assert why in fault


def test_dns_records() -> None:
    got = settings(AERO_L2_DNS_A="Files.LAN.=10.0.2.2, files.lan=10.0.2.3,a_b.x=1.2.3.4").dns_a
    assert got == (
        ("files.lan", IPv4Address("10.0.2.2")),
        ("files.lan", IPv4Address("10.0.2.3")),
        ("a_b.x", IPv4Address("1.2.3.4")),
    )


@pytest.mark.parametrize(
    "value", ["files.lan", "files.lan=::1", "=1.2.3.4", "a..b=1.2.3.4", "a=1.2.3.4,a=1.2.3.4"]
)
def test_bad_dns_record_is_refused(value: str) -> None:
    assert only_fault(AERO_L2_DNS_A=value).startswith("AERO_L2_DNS_A=")


def test_version_variables() -> None:
    got = settings(VERSION="1.2", AERO_L2_PROXY_GIT_SHA="abc", GIT_SHA="def", BUILD_TIMESTAMP="2026-01-01")
    assert (got.version, got.git_sha, got.built_at) == ("1.2", "abc", "2026-01-01")


@pytest.mark.parametrize("port", [67, 69])
def test_udp_port_the_nat_process_answers_itself_is_refused(port: int) -> None:
    environment = {
        "AERO_L2_OPEN": "1",
        "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1",
        "AERO_L2_UDP_FORWARD": f"10.0.2.2:9000=127.0.0.1:{port}",
    }
    with pytest.raises(ConfigError, match=f"answers UDP port {port}"):
        load(environment)


def test_secret_to_resume_by_needs_room_in_a_message() -> None:
    assert settings().resume_seconds == 0
    assert settings(AERO_L2_RESUME_SECONDS="60").resume_seconds == 60
    settings(AERO_L2_RESUME_SECONDS="60", AERO_L2_MAX_CONTROL_PAYLOAD="32")
    settings(AERO_L2_MAX_CONTROL_PAYLOAD="31")
    assert only_fault(AERO_L2_RESUME_SECONDS="60", AERO_L2_MAX_CONTROL_PAYLOAD="31") == (
        "AERO_L2_RESUME_SECONDS needs AERO_L2_MAX_CONTROL_PAYLOAD to be 32 or more: it is 31"
    )


def test_suffix_on_a_number_of_bytes_is_refused_with_the_number_that_is_meant() -> None:
    assert only_fault(AERO_L2_MAX_BYTES_PER_CONNECTION="10M").endswith("(bytes: 10 MB = 10000000)")


@pytest.mark.parametrize("name", ["AERO_L2_IDLE_TIMEOUT_MS", "AERO_L2_DRAIN_MS"])
def test_seconds_in_place_of_milliseconds_are_a_warning(name: str) -> None:
    assert load(KEY | {name: "30"}).warnings == (f"{name}='30' is in milliseconds: less than a second",)
    assert load(KEY | {name: "30000"}).warnings == ()
    assert load(KEY | {name: "0"}).warnings == ()
