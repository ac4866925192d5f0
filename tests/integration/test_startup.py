"""Starting and stopping the program as a person does: what it says and how it ends."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(ROOT / ".venv/bin/aero-l2")
NO_AUTH = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}
BASE = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"}


def serve(*arguments: str, timeout_s: float = 30, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run ``aero-l2 serve`` to its end."""
    return subprocess.run(
        [PROGRAM, "serve", *arguments],
        env={**BASE, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "AERO_L2_INSECURE_ALLOW_NO_AUTH"),
        ({"AERO_L2_OPEN": "1"}, "AERO_L2_INSECURE_ALLOW_NO_AUTH"),
        ({**NO_AUTH, "AERO_L2_OPEN": "true"}, "AERO_L2_OPEN"),
        ({**NO_AUTH, "AERO_L2_AUTH_MODE": "jwt"}, "AERO_L2_AUTH_MODE"),
        ({**NO_AUTH, "AERO_L2_MAX_CONNECTIONS": "many"}, "AERO_L2_MAX_CONNECTIONS='many'"),
        ({**NO_AUTH, "AERO_L2_ALLOWED_TCP_PORTS": ""}, "AERO_L2_ALLOWED_TCP_PORTS"),
        ({**NO_AUTH, "AERO_L2_TCP_FORWARD": "10.0.2.2:80=[::1]:80"}, "AERO_L2_TCP_FORWARD"),
        ({**NO_AUTH, "AERO_L2_TCP_FORWARD": "10.0.2.2:80=127.0.0.2:80"}, "127.0.0.1"),
        ({**NO_AUTH, "AERO_L2_USER": "nobody-of-this-name"}, "AERO_L2_USER"),
        ({**NO_AUTH, "AERO_L2_USER": "root"}, "AERO_L2_USER"),
    ],
)
def test_wrong_setting_ends_with_status_2_and_one_line_that_names_it(
    environment: dict[str, str], said: str
) -> None:
    done = serve("--bind", "127.0.0.1:0", **environment)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr


def test_busy_port_ends_with_status_2_and_names_address_and_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve("--bind", f"127.0.0.1:{port}", **NO_AUTH)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "AERO_L2_PROXY_LISTEN_ADDR" in line


def test_interrupt_of_a_terminals_process_group_ends_with_status_0() -> None:
    process = subprocess.Popen(
        [PROGRAM, "serve", "--bind", "127.0.0.1:0", "--ready-stdout"],
        env={**BASE, **NO_AUTH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("AERO_L2_PROXY_READY ws://127.0.0.1:")
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_version_is_printed() -> None:
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, env=BASE, check=True)
    assert done.stdout.startswith("aero-l2 ")


def test_server_is_not_to_be_started_directly() -> None:
    python = str(ROOT / ".venv/bin/python")
    done = subprocess.run(
        [python, "-I", "-m", "aero_l2.app"],
        env={**BASE, **NO_AUTH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "aero-l2 serve" in done.stderr
