"""The units of deploy/systemd, as systemd's own tools judge them without running them."""

import re
import subprocess
from pathlib import Path

from typer.main import get_group

from aero_l2.cli.program import app

TREE = Path(__file__).parents[2]
UNITS = TREE / "deploy/systemd"
_PAGE = TREE / "docs/linux-host.md"
# /usr/bin with our program in it, for the verifier only.
_WITH_PROGRAM = """
mount -t overlay -o "lowerdir=$1:/usr/bin" overlay /usr/bin
shift
exec systemd-analyze verify --man=no --recursive-errors=no "$@"
"""


def _security(*options: str) -> str:
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--no-pager",
            *options,
            str(UNITS / "aero-l2.service"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    program = tmp_path / "aero-l2"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = [str(UNITS / f"aero-l2.{kind}") for kind in ("service", "socket")]
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _WITH_PROGRAM, "sh"]
    done = subprocess.run([*private, str(tmp_path), *units], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_exposure_is_what_the_documentation_says_and_does_not_rise() -> None:
    """docs/linux-host.md prints what systemd-analyze finds left open, and why each of it is."""
    said = re.search(r"exposure level for aero-l2\.service: (\d+\.\d)", _PAGE.read_text())
    found = re.search(r"exposure level for aero-l2\.service: (\d+\.\d)", _security())
    assert said is not None
    assert found is not None
    assert float(found[1]) == float(said[1])


def test_each_thing_left_open_has_its_reason() -> None:
    open_still = set(re.findall(r"^✗ (\S+(?: \S+)?)  ", _security(), re.MULTILINE))
    rows = set(re.findall(r"^\| `([^`]+)` \| ", _PAGE.read_text().replace("\\|", "|"), re.MULTILINE))
    assert open_still
    assert open_still <= rows


def test_man_page_names_every_command() -> None:
    page = (TREE / "deploy/debian/aero-l2.1").read_text()
    assert set(re.findall(r"^\.TP\n\.B ([a-z]+)$", page, re.MULTILINE)) == set(get_group(app).commands)
