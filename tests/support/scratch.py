"""A folder for the temporary files of one run: the service user can reach it, and what a killed run left is
removed by the next one."""

import fcntl
import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "aero-l2-run-"
_PLACES = ("/tmp", "/var/tmp")


def make(who: str) -> Path:
    """A folder where temporary files go from now on. It is locked as long as this process, or one that it
    forked, lives. Raises SystemExit with ``who`` and why there is none."""
    place = _place(who)
    _clear(place)
    folder = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=place))
    folder.chmod(0o755)
    fcntl.flock(os.open(folder, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX)
    folder = folder.rename(place / folder.name[1:])  # has its lock by the time that others see it
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


def remove(folder: Path) -> None:
    """With all that is in it, as far as that can be."""
    shutil.rmtree(folder, ignore_errors=True)


def _clear(place: Path) -> None:
    """Remove the folders of our own whose lock nobody has any more."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(fd).st_uid == os.geteuid():
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(folder)
            finally:
                os.close(fd)


def _place(who: str) -> Path:
    wanted = Path(tempfile.gettempdir()).resolve()
    reason = _unsuitable(wanted)
    if reason is None:
        return wanted
    for other in map(Path, _PLACES):
        if _unsuitable(other) is None:
            print(f"{who}: {wanted}: {reason}: temporary files go to {other}", file=sys.stderr, flush=True)
            return other
    raise SystemExit(f"{who}: {wanted}: {reason}: set TMPDIR to another folder")


def _unsuitable(folder: Path) -> str | None:
    """Why programs for the service user cannot be put there."""
    try:
        for parent in (*reversed(folder.parents), folder):
            if not parent.stat().st_mode & stat.S_IXOTH:
                return f"the service user cannot pass {parent}"
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            return "mounted noexec"
        return None if os.access(folder, os.W_OK) else "not writable"
    except OSError as error:
        return str(error.strerror)
