"""What a run leaves behind: paths as their caller means them, files that belong to the owner of the tree."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
FROM = "AERO_L2_BENCH_FROM"
"""Variable: where `./dev` was started, which is not where it works."""


def place(path: str) -> Path:
    """A path from the command line."""
    return Path(os.environ.get(FROM, ""), path)


def give(path: Path) -> None:
    """What root made goes to the owner of the tree, where that is somebody else."""
    owner = TREE.stat()
    with contextlib.suppress(OSError):  # not every root may give away
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


@contextmanager
def giving(path: Path) -> Iterator[None]:
    """A file that is written meanwhile; one that was there keeps its owner."""
    is_new = not path.exists()
    yield
    if is_new:
        give(path)


def folder(path: Path) -> None:
    """Make it, with the folders above it."""
    made = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in made:
        give(one)


def fault_of_file(path: Path) -> str | None:
    """Why it cannot be written."""
    if path.is_dir():
        return f"{path} is a folder"
    if not path.parent.is_dir():
        return f"{path}: there is no folder {path.parent}"
    is_writable = os.access(path if path.exists() else path.parent, os.W_OK)
    return None if is_writable else f"{path} is not writable"


def fault_of_folder(path: Path) -> str | None:
    """Why files cannot be put into it; one that is missing is going to be made."""
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not there.is_dir():
        return f"{there} is no folder"
    return None if os.access(there, os.W_OK) else f"{there} is not writable"
