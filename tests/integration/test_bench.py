"""`./dev bench` runs, and what it writes has the shape that docs/performance.md describes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import addresses as at
from support.proxy import Proxy, run_proxy
from support.tlsedge import certificate
from support.wait import wait_until
from support.world import World

from bench.lab import Running

pytestmark = pytest.mark.slow

TREE = Path(__file__).parents[2]
BENCH = (sys.executable, "-m", "bench")
MEANWHILE = ("idle", "bulk flow up", "bulk flow down")
PATHS = ("tunnel", "four tunnels", "straight wire", "four straight wires")


def bench(*words: str, before: Sequence[str] = (), **variables: str) -> str:
    done = subprocess.run(
        [*before, *BENCH, *words],
        cwd=TREE,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def figures(taken: dict[str, Any], table: str) -> dict[tuple[str, ...], dict[str, list[float]]]:
    """Values of each figure of each row; asserts that what is said of them is so."""
    rows = {}
    for row in taken["tables"][table]["rows"]:
        for of in row["figures"].values():
            assert set(of) == {"median", "min", "max", "values"}
            assert of["min"] <= of["median"] <= of["max"]
            assert len(of["values"]) == taken["rounds"]
        rows[tuple(row["labels"])] = {name: of["values"] for name, of in row["figures"].items()}
    return rows


def test_quick_run_gives_tables_and_json(tmp_path: Path) -> None:
    path = tmp_path / "taken.json"
    printed = bench("--quick", "--only", "transfers", "--json", str(path))
    taken = json.loads(path.read_text())
    assert (taken["format"], taken["server"], taken["rounds"], taken["quick"]) == (2, "local", 1, True)
    assert list(taken["tables"]) == ["transfers"]
    moved = figures(taken, "transfers")
    assert set(moved) == {(path, way) for path in PATHS for way in ("up", "down")}
    for (name, _), values in moved.items():
        processes = {"nat"} if "straight" in name else {"server", "netd", "nat", "card"}
        assert {f"{process}_s_per_gb" for process in processes} <= set(values)
        assert not any("_user_" in figure or "_system_" in figure for figure in values)
        for process in processes & {"server", "nat"}:
            assert min(values[f"{process}_s_per_gb"]) > 0
    assert "### Bulk TCP" in printed
    said = bench("compare", str(path), str(path))
    assert re.search(r"^(\d\d) of \1 medians within 15 %, the largest difference \+0.0 %", said, re.MULTILINE)


def test_every_other_measurement_runs_and_many_tunnels_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "taken.json"
    wanted = ("latency", "packets", "memory", "many")
    bench("--quick", *(word for part in wanted for word in ("--only", part)), "--json", str(path))
    taken = json.loads(path.read_text())
    assert set(figures(taken, "latency")) == {
        (name, meanwhile) for name in ("tunnel", "straight wire") for meanwhile in MEANWHILE
    }
    assert all(values["received_per_s"][0] > 0 for values in figures(taken, "packets").values())
    (memory,) = figures(taken, "memory").values()
    assert 0.05 < memory["nat_own_mib"][0] < memory["processes_mib"][0] < 5
    (many,) = figures(taken, "many").values()
    left = {name: values for name, values in many.items() if name.startswith("left_")}
    assert left == {
        name: [0] for name in ("left_processes", "left_descriptors", "left_namespaces", "left_links")
    }
    assert many["failed"] == [0]


@pytest.fixture(scope="module")
def elsewhere(world: World) -> Iterator[Proxy]:
    with run_proxy(world, "root") as proxy:
        yield proxy


@contextmanager
def behind_tls(proxy: Proxy, folder: Path) -> Iterator[str]:
    """What ends TLS stands in front of the server meanwhile; its URL."""
    command = [sys.executable, "-m", "support.tlsedge", *map(str, certificate(folder, "IP:127.0.0.1"))]
    edge = subprocess.Popen(
        proxy.world.host.enter(*command, at.LOOPBACK, str(proxy.port)),
        cwd=TREE / "tests",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert edge.stdout is not None
    try:
        yield f"wss://{at.LOOPBACK}:{int(edge.stdout.readline())}/l2"
    finally:
        edge.kill()
        edge.communicate(timeout=10)


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_server_elsewhere_is_measured_from_outside(elsewhere: Proxy, tmp_path: Path, *, tls: bool) -> None:
    world, path = elsewhere.world, tmp_path / "taken.json"
    parts = ("--only", "transfers", "--only", "latency")
    with ExitStack() as stack:
        url = stack.enter_context(behind_tls(elsewhere, tmp_path)) if tls else elsewhere.url
        stack.callback(Running(world.internet.enter(*BENCH, "peer", at.WEB)).close)
        words = ("--url", url, "--quick", *parts, "--json", str(path), "--peer", at.WEB)
        bench(*words, before=world.host.enter(), SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    taken = json.loads(path.read_text())
    assert taken["server"] == url
    assert set(figures(taken, "transfers")) == {(path, way) for path in PATHS[:2] for way in ("up", "down")}
    assert set(figures(taken, "latency")) == {("tunnel", meanwhile) for meanwhile in MEANWHILE}


def test_without_a_peer_only_set_up_is_measured(elsewhere: Proxy, tmp_path: Path) -> None:
    """Through the tunnels goes nothing but the guests' DHCP."""
    world, path = elsewhere.world, tmp_path / "taken.json"
    reached = len(world.internet_services.events)
    bench("--url", elsewhere.url, "--quick", "--json", str(path), before=world.host.enter())
    opened = figures(json.loads(path.read_text()), "opening")
    assert set(opened) == {("1",), ("8",), ("50",)}
    for values in opened.values():
        assert 0 < values["best_ms"][0] <= values["p50_ms"][0] <= values["p99_ms"][0]
    wait_until(lambda: not elsewhere.with_role("nat"), "every tunnel is undone", 60)
    assert len(world.internet_services.events) == reached
