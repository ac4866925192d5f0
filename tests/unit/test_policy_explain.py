"""`aero-l2 policy`: a verdict names the rule and the setting that decide; the packet rules are printed."""

import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aero_l2.cli.program import app
from aero_l2.config import load
from aero_l2.policy.egress import EgressPolicy
from aero_l2.policy.explain import Destination, Protocol, Verdict, explain

KEY = {"AERO_L2_API_KEY": "a-key-0123456789abcdef"}
HOSTS = [IPv4Network("45.33.32.10/32"), IPv4Network("151.101.64.0/24")]
LISTS = {
    "AERO_L2_DENIED_CIDRS": "93.184.0.0/16",
    "AERO_L2_ALLOWED_CIDRS": "192.168.50.0/24,45.33.32.10",
    "AERO_L2_ALLOWED_TCP_PORTS": "80,8000-8100",
    "AERO_L2_DENIED_UDP_PORTS": "53",
    "AERO_L2_TCP_FORWARD": "10.0.2.2:80=127.0.0.1:8080,10.0.2.2:81=127.0.0.1:8080",
}


def judged(address: str, port: int | None = None, protocol: Protocol = "tcp", **variables: str) -> Verdict:
    settings = load(KEY | variables).settings
    destination = Destination(IPv4Address(address), protocol, port)
    return explain(EgressPolicy.of(settings), settings.forwards, HOSTS, destination)


@pytest.mark.parametrize(
    ("address", "port", "protocol", "allowed", "said"),
    [
        ("8.8.8.8", 80, "tcp", True, "no rule denies it"),
        ("8.8.8.8", None, "tcp", True, "no rule denies it"),
        ("8.8.8.8", 79, "tcp", False, "not among the allowed (AERO_L2_ALLOWED_TCP_PORTS)"),
        ("8.8.8.8", 8100, "tcp", True, "no rule denies it"),
        ("8.8.8.8", 8101, "tcp", False, "AERO_L2_ALLOWED_TCP_PORTS"),
        ("8.8.8.8", 53, "udp", False, "UDP port 53 is denied (AERO_L2_DENIED_UDP_PORTS)"),
        ("8.8.8.8", None, "ping", True, "no rule denies it"),
        ("93.184.216.34", 80, "tcp", False, "93.184.0.0/16 is a denied prefix (AERO_L2_DENIED_CIDRS)"),
        ("192.168.50.9", 80, "tcp", True, "192.168.50.0/24 is an allowed prefix (AERO_L2_ALLOWED_CIDRS)"),
        ("192.168.50.9", 22, "tcp", False, "AERO_L2_ALLOWED_TCP_PORTS"),
        ("192.168.51.9", 80, "tcp", False, "192.168.0.0/16 is private use (RFC 1918)"),
        ("169.254.169.254", 80, "tcp", False, "AERO_L2_ALLOWED_CIDRS opens it"),
        ("45.33.32.10", 80, "tcp", True, "an allowed prefix"),
        ("151.101.64.9", 80, "tcp", False, "151.101.64.0/24 is the host itself"),
        ("127.0.0.1", 80, "tcp", False, "no prefix opens it"),
        ("10.0.3.2", 80, "tcp", False, "no prefix opens it"),
        ("10.0.2.2", 53, "udp", True, "the gateway's own DNS"),
        ("10.0.2.2", None, "ping", True, "the gateway's own echo"),
        ("10.0.2.2", 22, "tcp", False, "a forward opens a port of it"),
        ("10.0.2.2", 80, "tcp", True, "forward to 127.0.0.1:8080 (AERO_L2_TCP_FORWARD)"),
        ("10.0.2.2", 81, "tcp", False, "TCP port 81 is not among the allowed"),
    ],
)
def test_verdict_names_the_deciding_rule(
    address: str, port: int | None, protocol: Protocol, allowed: bool, said: str
) -> None:
    verdict = judged(address, port, protocol, **LISTS)
    assert verdict.allowed is allowed
    assert said in verdict.reason


def test_ping_is_refused_by_a_list_of_udp_ports() -> None:
    assert (
        "AERO_L2_ALLOWED_UDP_PORTS" in judged("8.8.8.8", protocol="ping", AERO_L2_ALLOWED_UDP_PORTS="").reason
    )


def test_only_private_prefixes_are_said_to_open_with_the_switch() -> None:
    assert "AERO_L2_ALLOW_PRIVATE_IPS" in judged("10.0.0.1").reason
    assert "AERO_L2_ALLOW_PRIVATE_IPS" not in judged("169.254.169.254").reason


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["explain", "8.8.8.8:443"], 0, "allowed: no rule denies it\n"),
        (["explain", "8.8.8.8:25"], 1, "denied: TCP port 25 is denied (AERO_L2_DENIED_TCP_PORTS)\n"),
        (["explain", "8.8.8.8:25", "--udp"], 0, "allowed: no rule denies it\n"),
        (["explain", "127.0.0.1"], 1, "denied: 127.0.0.0/8 is loopback"),
        (["explain", "2606:4700::1111"], 1, "denied: guests have no IPv6\n"),
        (["explain", "[fd00:ec2::254]:80"], 1, "fd00:ec2::254/128 is cloud metadata (AWS)"),
        (["explain", "febf:ffff::", "--ping"], 1, "fe80::/10 is link local (RFC 4291 section 2.5.6)"),
        (["explain", "example.org"], 0, "allowed: no list denies the name; its addresses are judged"),
        (["explain", "Example.Org.:25"], 1, "denied: TCP port 25 is denied (AERO_L2_DENIED_TCP_PORTS)\n"),
        (["explain", "printer.local"], 1, "denied: names of the operator's network are not asked for"),
        (["explain", "a b"], 2, "aero-l2: 'a b' has 'a b', which is no host name"),
        (["explain", "8.8.8"], 2, "aero-l2: '8.8.8' has '8.8.8', which is no IPv4 address"),
        (["explain", "8.8.8.8:x"], 2, "aero-l2: '8.8.8.8:x' has 'x' for a port"),
        (["explain", "8.8.8.8:1", "--ping"], 2, "ping has none"),
        (["explain", "8.8.8.8", "--config", "/nonexistent"], 2, "aero-l2: --config='/nonexistent'"),
        (["explain", "8.8.8.8:443", "--config", "NAMES"], 2, "depends: no rule denies it, but"),
        (["show"], 0, "table inet aero {"),
    ],
)
def test_command_line(arguments: list[str], status: int, said: str, tmp_path: Path) -> None:
    (names := tmp_path / "names.toml").write_text('allowed_domains = ["a.test"]')
    given = [str(names) if argument == "NAMES" else argument for argument in arguments]
    done = CliRunner().invoke(app, ["policy", *given], env=KEY)
    assert done.exit_code == status
    assert done.output.startswith(said) or said in done.output.splitlines()[0]


def test_denied_ipv6_prefix_is_named() -> None:
    env = KEY | {"AERO_L2_DENIED_CIDRS": "192.0.2.0/24,2606:4700::/32"}
    done = CliRunner().invoke(app, ["policy", "explain", "2606:4700::1"], env=env)
    said = "guests have no IPv6; 2606:4700::/32 is a denied prefix (AERO_L2_DENIED_CIDRS), too"
    assert (done.exit_code, done.output) == (1, f"denied: {said}\n")


def test_printed_rules_are_those_of_the_settings(tmp_path: Path) -> None:
    config = tmp_path / "aero-l2.toml"
    config.write_text(
        'allowed_cidrs = ["192.168.50.0/24"]\nallowed_tcp_ports = [443]\nallowed_domains = ["a.test"]\n'
        "max_bytes_per_second = 50000\n"
        'tcp_forward = ["10.0.2.2:443=127.0.0.1:1", "10.0.2.2:80=files.lan:1"]'
    )
    done = CliRunner().invoke(app, ["policy", "show", "--config", str(config)], env=KEY)
    assert done.exit_code == 0
    for expected in (
        "set allowed4 { type ipv4_addr; flags interval; elements = { 192.168.50.0/24 }; }",
        "proto-dst != { 443-443 } counter name denied_port",
        "# tbf on tap0 and on tap1: 50000 bytes/second, burst 131072 bytes",
        "ip daddr 10.0.2.2 tcp dport 443 dnat ip to 10.0.3.2:1",
        "ip daddr != @named4 counter name denied_name goto refuse",
        "th dport 53 dnat ip to 10.0.2.2:1053",
        "th dport 853 counter name denied_encrypted_dns goto refuse",
        "# tcp 10.0.2.2:80 goes to files.lan:1, which is looked up for each tunnel",
    ):
        assert expected in done.output


def test_recipes_of_the_document_are_accepted() -> None:
    text = (Path(__file__).parents[2] / "docs/policy.md").read_text()
    recipes = [re.findall(r"^export (\S+?)=(\S+)", block, re.MULTILINE) for block in text.split("```sh")]
    assert len([recipe for recipe in recipes if recipe]) >= 7
    for recipe in recipes:
        assert load(KEY | dict(recipe)).warnings == ()
