"""`aero-l2 probe`: what it says of its options and of where its output goes, before and without a server."""

from __future__ import annotations

import os
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
