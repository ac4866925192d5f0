"""What root does for the service user before it becomes that user."""

import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from netns import users

USER = pwd.struct_passwd(("somebody", "x", 61234, 61234, "", "/nonexistent", "/bin/false"))


@pytest.fixture
def passable(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


def test_missing_folder_is_made_for_the_service_user_alone(passable: Path) -> None:
    assert os.geteuid() == 0, "run it as root (./dev test)"
    path = passable / "parent/captures"
    list(users.own_folders([str(path)], USER))
    about = path.stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o7777) == (61234, 61234, 0o700)
    assert path.parent.stat().st_uid == 0


def test_folder_that_is_there_stays_whose_it_is(passable: Path) -> None:
    path = passable / "captures"
    path.mkdir(mode=0o755)
    assert list(users.own_folders([str(path)], USER)) == [path]
    assert path.stat().st_uid == 0


@pytest.mark.parametrize("instead", ["link on the way", "folder of root's"])
def test_folder_that_is_exchanged_meanwhile_is_not_given_away(
    passable: Path, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """By who may rename one on the way, between mkdir(2) and open(2)."""
    theirs, roots = passable / "theirs", passable / "root/captures"
    (roots / "private").mkdir(parents=True)
    theirs.mkdir()
    mkdir = os.mkdir

    def mkdir_and_exchange(path: Any, *arguments: Any, **options: Any) -> None:
        mkdir(path, *arguments, **options)
        if Path(path).name != "captures":
            return
        if instead == "link on the way":
            theirs.rename(passable / "aside")
            theirs.symlink_to(roots.parent)
        else:
            (theirs / "captures").rename(passable / "aside")
            roots.rename(theirs / "captures")

    monkeypatch.setattr(os, "mkdir", mkdir_and_exchange)
    list(users.own_folders([str(theirs / "captures")], USER))
    found = roots if roots.exists() else theirs / "captures"
    assert (found / "private").exists()
    assert found.stat().st_uid == 0
