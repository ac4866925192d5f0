"""compose.yaml and the scripts that it starts: what can be seen of them without an engine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.edge import PRODUCTION, TREE
from support.promtool import promtool
from support.wait import wait_until

COMPOSE = TREE / "compose.yaml"
FIRST, START = TREE / "deploy/compose/first-start.sh", TREE / "deploy/compose/start.sh"
FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 45.33.32.10
        /32 link UNICAST
        /32 host LOCAL
     |-- 45.33.32.255
        /32 link BROADCAST
     |-- 127.0.0.1
        /32 host LOCAL
"""
IF_INET6 = """00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000007 02 40 00 80     eth0
fe800000000000000000000000000007 02 40 20 80     eth0
"""
OWN = "2001:0db8:0000:0000:0000:0000:0000:0007,45.33.32.10"


def services() -> dict[str, dict[str, Any]]:
    """As the file has them."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


# --- The file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", services())
def test_every_service_has_the_least_privilege_and_bounds(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert "no-new-privileges:true" in service["security_opt"]
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    if name != "aero-l2-first-start":
        assert service["pids_limit"] > 0
        assert service["mem_limit"]


def test_only_the_edge_is_published_and_without_configuration_to_this_machine() -> None:
    for name, service in services().items():
        for port in service.get("ports", []):
            assert name in ("aero-l2-edge", "aero-l2-demo", "aero-l2-grafana")
            assert port.startswith(("127.0.0.1:", "${EDGE_BIND:-127.0.0.1}:"))
    assert yaml.safe_load(COMPOSE.read_text())["networks"]["aero-l2-inside"] == {"internal": True}


def test_the_file_has_what_old_programs_take() -> None:
    """docker-compose 1.29 has no `name:`; podman-compose 1.0.3 takes no blank default."""
    assert "name" not in yaml.safe_load(COMPOSE.read_text())
    assert ":-}" not in COMPOSE.read_text()
    assert all(isinstance(service.get("sysctls", []), list) for service in services().values())


def test_production_values_are_what_the_proxy_gets() -> None:
    proxy = services()["aero-l2-proxy"]
    assert proxy["env_file"] == [str(PRODUCTION.relative_to(TREE))]
    replaced = {"AERO_L2_ALLOWED_ORIGINS", "AERO_L2_ALLOWED_HOSTS", "AERO_L2_DENIED_CIDRS"}
    assert set(proxy["environment"]) == replaced | {"AERO_L2_TRUSTED_PROXIES", "AERO_L2_METRICS_ADDR"}


def test_docker_compose_takes_it_and_profiles_are_optional() -> None:
    for profiles in ((), ("--profile", "demo", "--profile", "monitoring")):
        done = subprocess.run(
            ["docker-compose", *profiles, "config", "-q"],
            cwd=TREE,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
    optional = {name: service["profiles"] for name, service in services().items() if "profiles" in service}
    monitoring = {"aero-l2-prometheus": ["monitoring"], "aero-l2-grafana": ["monitoring"]}
    assert optional == {"aero-l2-demo": ["demo"], **monitoring}


def test_prometheus_of_the_profile_is_what_promtool_takes() -> None:
    done = promtool("check", "config", str(TREE / "deploy/prometheus/compose.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


# --- The first start ----------------------------------------------------------------------------------------


@pytest.fixture
def stand(tmp_path: Path) -> Path:
    """Folders as the containers have them, and a program `aero-l2` that says how it was started."""
    for name in ("state", "meeting", "net", "site/secrets", "site/compose", "bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "net/fib_trie").write_text(FIB_TRIE)
    (tmp_path / "net/if_inet6").write_text(IF_INET6)
    for script in START.parent.iterdir():
        (tmp_path / "site/compose" / script.name).write_bytes(script.read_bytes())
    program = tmp_path / "bin/aero-l2"
    program.write_text(
        '#!/bin/sh\n[ "$1" != token ] || exec od -An -tx1 -N16 /dev/urandom\necho "$@"\nenv\n'
        '[ -z "$STAY" ] || { trap "echo reload" HUP; while :; do read -r _ <&9; done; }\n'
    )
    program.chmod(0o755)
    return tmp_path


def run(stand: Path, script: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(script), *words],
        env=_environment(stand, settings),
        capture_output=True,
        text=True,
        timeout=60,
    )


def _environment(stand: Path, settings: dict[str, str]) -> dict[str, str]:
    return {
        "PATH": f"{stand}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "AERO_L2_STATE": str(stand / "state"),
        "AERO_L2_GRAFANA_PASSWORD": str(stand / "none"),
        "AERO_L2_MEETING": str(stand / "meeting"),
        "AERO_L2_HOST_NET": str(stand / "net"),
        "AERO_L2_SITE": str(stand / "site"),
        "AERO_L2_CONFIG": str(stand / "aero-l2.toml"),
        **settings,
    }


def test_first_start_makes_secrets_once_and_writes_the_machines_addresses(stand: Path) -> None:
    done = run(stand, FIRST)
    assert done.returncode == 0, done.stderr
    made = {name: (stand / "state" / name).read_text() for name in ("session-secret", "api-key")}
    assert len({value.strip() for value in made.values()}) == 2
    assert (stand / "state/host-addresses").read_text().strip() == OWN
    assert not any(value.strip() in done.stderr for value in made.values()), "a secret is in the log"
    assert run(stand, FIRST).returncode == 0
    assert made == {name: (stand / "state" / name).read_text() for name in made}
    assert (stand / "meeting").stat().st_mode & 0o7777 == 0o1777


# --- The start ----------------------------------------------------------------------------------------------


def settings_of(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines()[1:] if "=" in line)


def test_start_uses_what_was_made_and_keeps_guests_from_the_machine(stand: Path) -> None:
    run(stand, FIRST)
    found = settings_of(run(stand, START, "doctor", AERO_L2_DENIED_CIDRS=""))
    assert found["AERO_L2_SESSION_SECRET_FILE"] == str(stand / "state/session-secret")
    assert found["AERO_L2_API_KEY_FILE"] == str(stand / "state/api-key")
    assert found["AERO_L2_DENIED_CIDRS"] == OWN
    assert not {"AERO_L2_STATE", "AERO_L2_SITE", "AERO_L2_MEETING"} & set(found), "no settings of the program"


def test_env_file_of_the_site_wins_and_nothing_in_it_is_executed(stand: Path) -> None:
    run(stand, FIRST)
    (stand / "site/.env").write_text(
        "# a comment\n\nAERO_L2_MAX_CONNECTIONS=7\nSESSION_SECRET=$(id) `id` 'as it is'\n"
        "AERO_L2_DENIED_CIDRS=198.51.100.0/24\nAERO_L2_ALLOWED_UDP_PORTS="
    )
    found = settings_of(
        run(stand, START, "doctor", AERO_L2_MAX_CONNECTIONS="200", AERO_L2_ALLOWED_UDP_PORTS="1")
    )
    assert found["AERO_L2_MAX_CONNECTIONS"] == "7"
    assert found["SESSION_SECRET"] == "$(id) `id` 'as it is'"
    assert found["AERO_L2_ALLOWED_UDP_PORTS"] == ""
    assert found["AERO_L2_DENIED_CIDRS"] == f"198.51.100.0/24,{OWN}"
    assert "AERO_L2_SESSION_SECRET_FILE" not in found, "the site's own secret has no effect"


@pytest.mark.parametrize("line", ["AERO_L2_LOG_LEVEL", "A B=c", "export A=b", "A-B=c"])
def test_env_file_that_is_none_is_refused(stand: Path, line: str) -> None:
    run(stand, FIRST)
    (stand / "site/.env").write_text(f"{line}\n")
    done = run(stand, START, "doctor")
    assert done.returncode == 2
    assert done.stderr.startswith("aero-l2-start: deploy/.env: ")


def test_secrets_of_the_site_come_before_those_that_were_made(stand: Path) -> None:
    run(stand, FIRST)
    (stand / "site/secrets/session-secret").write_text("of the gateway\n")
    (stand / "site/secrets/session-secret-previous").write_text("")
    found = settings_of(run(stand, START, "doctor"))
    assert found["AERO_L2_SESSION_SECRET_FILE"] == str(stand / "site/secrets/session-secret")
    assert found["AERO_L2_SESSION_SECRET_PREVIOUS_FILE"] == str(
        stand / "site/secrets/session-secret-previous"
    )


# --- Proxy and edge meet ------------------------------------------------------------------------------------

_INSIDE = """
ip link set lo up
ip link add in0 type veth peer name in1
ip link add out0 type veth peer name out1
for name in in0 in1 out0 out1; do ip link set $name up; done
ip address add 172.20.0.3/24 dev in0
ip address add 172.21.0.3/24 dev out0
ip route add default via 172.21.0.1
exec sh "$@"
"""


@contextmanager
def serving(stand: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """start.sh serve, in a network like that of the container; what it writes."""
    output = stand / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["unshare", "--net", "sh", "-euc", _INSIDE, "sh", str(START), "serve"],
            env=_environment(stand, {"STAY": "1"}),
            stdout=file,
            stderr=file,
            process_group=0,
        )
        try:
            yield process, output
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def test_the_proxy_believes_exactly_the_edges_and_follows_them(stand: Path) -> None:
    run(stand, FIRST)
    (stand / "meeting/edge").write_text("172.20.0.2 172.22.0.2 \n")
    with serving(stand) as (process, output):
        config = stand / "aero-l2.toml"
        wait_until(lambda: "serve --config" in output.read_text() or process.poll() is not None, "it serves")
        assert process.poll() is None, output.read_text()
        assert (stand / "meeting/proxy").read_text() == "172.20.0.3\n", "not by the network with the way out"
        assert config.read_text() == 'trusted_proxies = ["172.20.0.2","172.22.0.2"]\n'
        (stand / "meeting/edge").write_text("172.20.0.9 not-an-address; 172.22.0.9\n")
        wait_until(lambda: "reload" in output.read_text(), "the proxy is told", 30)
        assert config.read_text() == 'trusted_proxies = ["172.20.0.9","172.22.0.9"]\n'


def test_looking_at_the_settings_leaves_the_running_proxy_alone(stand: Path) -> None:
    run(stand, FIRST)
    done = run(stand, START, "serve", "--check")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "serve --check")
    assert not (stand / "meeting/proxy").exists()
