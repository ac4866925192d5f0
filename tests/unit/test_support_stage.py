"""The programs of a proxy under test."""

import stat
from pathlib import Path

from support.stage import copy_program, installed


def test_program_is_not_copied_into_what_a_link_leads_to(tmp_path: Path) -> None:
    """/dev/null had a program's mode once, for the whole machine."""
    machines = tmp_path / "machines-own"
    machines.touch(mode=0o600)
    (tmp_path / "nft").symlink_to(machines)
    copy_program("nft", tmp_path)
    assert stat.S_IMODE(machines.stat().st_mode) == 0o600
    assert machines.read_bytes() == b""
    assert (tmp_path / "nft").read_bytes() == Path(installed("nft")).read_bytes()
