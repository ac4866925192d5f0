"""deploy/edge/start.sh refuses what it cannot serve, in one line; nginx.conf fits production.env."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support.edge import FILES, production


def started(**settings: str) -> subprocess.CompletedProcess[str]:
    """start.sh where there is no /run/aero-edge, or with a fault before it matters."""
    script = 'mount -t tmpfs tmpfs /run && mkdir /run/aero-edge /run/state && exec sh "$1"'
    return subprocess.run(
        [
            "unshare",
            "--mount",
            "--net",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
            FILES / "start.sh",
        ],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "EDGE_STATE": "/run/state", **settings},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("EDGE_UPSTREAM", "aero-l2-proxy", "EDGE_UPSTREAM=aero-l2-proxy has no port"),
        ("EDGE_UPSTREAM", "x:1; } include /etc/passwd; #", "is not host:port"),
        ("EDGE_UPSTREAM", "proxy:http", "EDGE_UPSTREAM=proxy:http is not host:port"),
        ("EDGE_SESSION", ":80", "EDGE_SESSION=:80 is not host:port"),
        ("EDGE_HTTPS_PORT", "https", "EDGE_HTTPS_PORT=https is not a port"),
        ("EDGE_NAMES", "lab.example,DNS:x", "EDGE_NAMES: lab.example,DNS:x is neither a name nor an address"),
        ("EDGE_DEMO", "/nowhere", "EDGE_DEMO=/nowhere has no index.html"),
        ("EDGE_STATE", "/proc/none", "/proc/none is not writable"),
    ],
)
def test_faults_are_named(name: str, value: str, words: str) -> None:
    done = started(**{name: value})
    assert done.returncode == 2, done.stderr
    assert words in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("aero-edge: ")


def test_half_a_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fullchain.pem").write_text("")
    done = started(EDGE_TLS=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"aero-edge: {tmp_path}/privkey.pem cannot be read by uid 0: both files")


def test_times_of_the_edge_fit_those_of_production() -> None:
    """An unanswered PING is repeated after three intervals; the proxy, not the edge, says who is idle."""
    config = (FILES / "nginx.conf").read_text()
    values = production()
    for directive in ("proxy_read_timeout", "proxy_send_timeout", "send_timeout"):
        (seconds,) = re.findall(rf"^\s*{directive} (\d+)s;", config, re.MULTILINE)
        assert int(seconds) * 1000 > 3 * int(values["AERO_L2_PING_INTERVAL_MS"])
        assert int(seconds) * 1000 > int(values["AERO_L2_IDLE_TIMEOUT_MS"])


def test_the_edge_lets_heads_through_that_the_proxy_takes() -> None:
    """Two buffers of 8 KiB are the proxy's 16 KiB."""
    assert "large_client_header_buffers 2 8k;" in (FILES / "nginx.conf").read_text()
