"""`aero-l2 probe`: what it says of its options and of where its output goes, before and without a server."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-c", "from aero_l2.cli import main; main()"]
NOBODY = "ws://127.0.0.1:9/l2"


def run(*arguments: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    """The program; ``shell``: redirections."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {shell}', "sh", *PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )


@pytest.mark.parametrize("kind", ["fifo", "directory", "link", "blank", "-"])
def test_textfile_that_is_no_regular_file_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "probe.prom"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("/dev/null")
    before = path.lstat() if kind in ("fifo", "directory", "link") else None
    done = run("probe", NOBODY, "--textfile", {"blank": " ", "-": "-"}.get(kind, str(path)))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("aero-l2: --textfile")
    assert done.stderr.count("\n") == 1
    if before is not None:
        after = path.lstat()
        assert (after.st_ino, stat.S_IFMT(after.st_mode)) == (before.st_ino, stat.S_IFMT(before.st_mode))


def test_regular_textfile_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "probe.prom"
    path.write_text("old")
    assert run("probe", NOBODY, "--textfile", str(path)).returncode == 3
    assert "aero_l2_probe_success" in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("probe", NOBODY), 1),
        (("probe", NOBODY, "--json"), 1),
        (("probe", NOBODY, "--nagios"), 3),
        (("probe", "nonsense", "--nagios"), 3),
        (("--help",), 1),
        (("--version",), 1),
        (("probe", "--help"), 1),
    ],
)
def test_standard_output_that_cannot_be_written_is_one_line(arguments: tuple[str, ...], status: int) -> None:
    done = run(*arguments, shell=">/dev/full")
    assert (done.returncode, done.stderr) == (status, "aero-l2: standard output: No space left on device\n")


def test_closed_standard_input_is_said() -> None:
    done = run("probe", NOBODY, "--token-file", "-", shell="<&-")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--token-file=-: standard input is closed" in done.stderr
    assert done.stderr.count("\n") == 1


def test_warn_ms_without_nagios_is_refused() -> None:
    done = run("probe", NOBODY, "--warn-ms", "5")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "aero-l2: --warn-ms is for --nagios: give that too, or leave it out\n"


@pytest.mark.parametrize("as_", ["lines", "nagios"])
def test_ctrl_c_says_what_was_interrupted(as_: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/l2"
        arguments = [*PROGRAM, "probe", url, *(["--nagios"] if as_ == "nagios" else [])]
        pipe = subprocess.PIPE
        with (
            subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True) as program,
            silent.accept()[0] as connection,
        ):
            connection.settimeout(60)
            assert connection.recv(1)
            program.send_signal(signal.SIGINT)
            said = program.communicate(timeout=60)
    if as_ == "nagios":
        assert (program.returncode, *said) == (3, "AERO-L2 UNKNOWN - interrupted at open\n", "")
    else:
        assert (program.returncode, *said) == (130, f"{url}\n", "aero-l2: interrupted at open\n")


def test_first_run_is_printed_before_the_second_begins() -> None:
    arguments = [*PROGRAM, "probe", NOBODY, "--count", "2", "--interval", "600"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert [program.stdout.readline().split()[0] for _ in range(3)] == [NOBODY, "FAILED", "FAILED"]
        program.send_signal(signal.SIGINT)
        said = program.communicate(timeout=60)
    assert (program.returncode, *said) == (130, "", "aero-l2: interrupted between two runs\n")


@pytest.mark.parametrize("name", ["1.2.3.4", "::1", "[::1]"])
def test_name_that_is_an_address_is_refused(name: str) -> None:
    done = run("probe", NOBODY, "--name", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"aero-l2: --name {name.strip('[]')} is an address, not a name: give a name\n"
