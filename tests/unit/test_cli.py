"""The command line as far as it goes before anything is started: what it refuses, what it hands on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NO_AUTH = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}
# Runs `serve` and shows what the supervisor would be started with
# instead of starting it.
SHOW = """
import os
def show(program, command, environment):
    for descriptor in (0, 1, 2):
        os.fstat(descriptor)
        assert os.get_inheritable(descriptor)
    with open(os.environ["SHOWN"], "w") as file:
        print(environment["AERO_L2_PROXY_LISTEN_ADDR"], file=file)
    os._exit(0)
os.execve = show
from aero_l2.cli import main
main()
"""


def serve(shown: Path, *arguments: str, closed: str = "") -> subprocess.CompletedProcess[str]:
    # The streams are closed by a shell, so that the interpreter starts without them.
    command = [sys.executable, "-c", SHOW, "serve", *arguments]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command],
        env={"PATH": os.environ["PATH"], "SHOWN": str(shown), **NO_AUTH},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("value", ["", "  ", "8090", "example.org:80"])
def test_bind_that_is_no_address_ends_with_status_2_and_one_line(tmp_path: Path, value: str) -> None:
    done = serve(tmp_path / "shown", "--bind", value)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"aero-l2: --bind={value!r} ")
    assert not (tmp_path / "shown").exists()


def test_bind_wins_over_the_environment(tmp_path: Path) -> None:
    done = serve(tmp_path / "shown", "--bind", "127.0.0.1:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "shown").read_text() == "127.0.0.1:1\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_do_not_matter(tmp_path: Path, closed: str) -> None:
    done = serve(tmp_path / "shown", "--bind", "127.0.0.1:1", closed=closed)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "shown").exists()


def test_closed_standard_error_still_ends_with_status_2(tmp_path: Path) -> None:
    done = serve(tmp_path / "shown", "--bind", "", closed="2>&-")
    assert (done.returncode, done.stdout) == (2, "")
