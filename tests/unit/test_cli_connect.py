"""`aero-l2 connect` as far as it goes without a server: what it refuses, and how."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

URL = "ws://127.0.0.1:1/l2"
CANARY = "canary-of-a-client"


def connect(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("aero-l2")), "connect", *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((URL,), "say what to attach"),
        (
            (URL, "--qemu", "unix:/tmp/q", "--uml", "/tmp/u"),
            "--qemu and --uml are given: one tunnel has one machine",
        ),
        ((URL, "--tap", "tap9", "--", "true"), "--tap and a command after -- are given: one tunnel"),
        ((URL, "--uml", "/tmp/u", "--keepalive", "nan"), "invalid value for '--keepalive'"),
        ((URL, "--uml", "/tmp/u", "--keepalive", "inf"), "--keepalive is a number of seconds"),
        ((URL, "--uml", "/tmp/u", "--report", "inf"), "--report is a number of seconds"),
        ((URL, "--", ""), "the command after -- is empty"),
        ((URL, "--qemu", "/tmp/q"), "--qemu=/tmp/q: write unix:PATH"),
        ((URL, "--qemu-connect", "unix:"), "write unix:PATH"),
        ((URL, "--qemu", "unix:/no/such/folder/q"), "cannot listen on /no/such/folder/q"),
        ((URL, "--uml", "/tmp/a,b"), "no path with a comma"),
        ((URL, "--tap", "far-too-long-for-an-interface"), "no name for an interface"),
        (("ftp://lab", "--uml", "/tmp/u"), "not an address: ftp://lab"),
        ((URL, "--attempts", "-1", "--uml", "/tmp/u"), "attempts"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(arguments: tuple[str, ...], said: str) -> None:
    done = connect(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_help_has_the_names_of_its_variables_whole() -> None:
    said = connect("--help", COLUMNS="80", TERM="dumb").stdout
    assert {"AERO_L2_CLIENT_TOKEN", "AERO_L2_CLIENT_TOKEN_FILE"} <= set(
        said.replace(",", " ").replace(".", " ").split()
    )


def test_no_server_is_one_line_and_status_1(tmp_path: Path) -> None:
    done = connect(
        URL, "--no-reconnect", "--quiet", "--uml", str(tmp_path / "u"), AERO_L2_CLIENT_TOKEN=CANARY
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"aero-l2: {URL}: Connection refused\n"
    assert list(tmp_path.iterdir()) == []


def test_attempts_are_told_and_counted(tmp_path: Path) -> None:
    done = connect(URL, "--attempts", "2", "--uml", str(tmp_path / "u"), AERO_L2_CLIENT_TOKEN=CANARY)
    assert done.returncode == 1
    assert done.stderr.count('"no tunnel"') == 1
    assert done.stderr.endswith(f"aero-l2: {URL}: Connection refused\n")
    assert CANARY not in done.stdout + done.stderr
