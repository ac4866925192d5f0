"""deploy/swarm/stack.yaml: nothing in it that a stack drops, and the settings it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy/swarm/stack.yaml"
# docker/cli, cli/compose/types: UnsupportedProperties, DeprecatedProperties and ForbiddenProperties.
DROPPED = {
    "build", "cgroup_parent", "cgroupns_mode", "container_name", "depends_on", "devices", "domainname",
    "expose", "external_links", "ipc", "links", "mac_address", "network_mode", "pid", "privileged", "restart",
    "security_opt", "shm_size", "userns_mode", "extends", "volume_driver", "volumes_from", "cpu_quota",
    "cpu_shares", "cpuset", "mem_limit", "memswap_limit", "tmpfs",
}  # fmt: skip


def stack() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


def service() -> dict[str, Any]:
    (found,) = stack()["services"].values()
    return dict(found)


def test_nothing_in_it_is_what_a_stack_drops() -> None:
    assert not set(service()) & DROPPED
    assert list(stack()["services"]) == ["aero-l2-proxy"]


def test_it_has_no_privilege_and_writes_nothing() -> None:
    assert service()["cap_drop"] == ["ALL"]
    assert service()["read_only"] is True
    assert int(service()["user"]) > 0
    assert "cap_add" not in service()


def test_the_device_is_a_bind_mount() -> None:
    mounts = [volume for volume in service()["volumes"] if volume["type"] == "bind"]
    assert mounts == [{"type": "bind", "source": "/dev/net/tun", "target": "/dev/net/tun"}]


def test_the_port_shows_the_clients_address() -> None:
    (port,) = service()["ports"]
    assert port["mode"] == "host"
    assert service()["deploy"]["mode"] == "global"
    assert service()["deploy"]["update_config"]["order"] == "stop-first", "the port is taken until the end"


def test_the_settings_are_those_of_production() -> None:
    (file,) = service()["env_file"]
    assert (FILE.parent / file).resolve() == ROOT / "deploy/production.env"
    (secret,) = service()["secrets"]
    assert service()["environment"]["AERO_L2_SESSION_SECRET_FILE"] == f"/run/secrets/{secret['source']}"
    assert stack()["secrets"][secret["source"]]["external"] is True


def test_there_is_time_to_drain() -> None:
    given = service()["environment"]
    milliseconds = int(given["AERO_L2_DRAIN_MS"]) + int(given["AERO_L2_SHUTDOWN_GRACE_MS"])
    assert int(service()["stop_grace_period"].removesuffix("s")) >= milliseconds / 1000 + 10
