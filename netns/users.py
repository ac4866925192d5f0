"""Becoming the service user, and making a private view of the file system for it.

Run by the supervisor while it is still root of the host; nothing of ours stays so.
"""

import os
import pwd
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from netns.errors import LaunchError
from netns.syscalls import Mount, Namespace, Prctl, mount, prctl, umount, unshare

TUN = "/dev/net/tun"
DEFAULT_USER = "aero-l2"
_SCRATCH = "/tmp"  # only a mount point, in a mount namespace of our own
_TUN_DEVICE = os.makedev(10, 200)


def become_service_user(user: pwd.struct_passwd, folders: Iterable[str] = ()) -> None:
    """Leave root for ``user``: private mounts first, then no groups, its gid, its uid.

    ``folders``: absolute paths where it is going to write; made for it where they are missing.
    Raises LaunchError with the setting to change.
    """
    try:
        unshare(Namespace.MOUNT)
        mount("none", "/", "", Mount.REC | Mount.SLAVE)
    except OSError as error:
        raise LaunchError(
            f"started by root but without its capabilities ({error}): start as an ordinary user instead"
        ) from error
    try:
        expose([*_code_folders(), *own_folders(folders, user)], user.pw_uid)
        if not _may_use(TUN, user):
            _private_tun(user)
        os.setgroups([])
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except OSError as error:
        raise LaunchError(
            f"cannot become the service user {user.pw_name}: {error}; root of a user namespace cannot: start "
            "as an ordinary user, or as root of the host"
        ) from error
    prctl(Prctl.SET_DUMPABLE, 1)  # or /proc/self/uid_map would belong to root


def own_folders(paths: Iterable[str], user: pwd.struct_passwd) -> Iterator[Path]:
    """Those of the folders that the user may enter; one that is missing is made, and is the user's.

    One that is there stays whose it is. Where it cannot be made, whoever writes there says why.
    """
    for path in map(Path, paths):
        with suppress(OSError):
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _make_for(user, path)
        with suppress(OSError):
            if path.is_dir() and _may_pass(path.stat(), user.pw_uid):
                yield path


def _make_for(user: pwd.struct_passwd, path: Path) -> None:
    """Make a folder that is the user's. Raises OSError.

    Whoever may rename a folder on the way can put another in its place at any moment: what is given away is
    in the folder that was opened, and has nothing in it.
    """
    with ExitStack() as opened:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        opened.callback(os.close, parent)
        os.mkdir(path.name, 0o700, dir_fd=parent)
        made = os.open(path.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        opened.callback(os.close, made)
        if not os.listdir(made):
            os.fchown(made, user.pw_uid, user.pw_gid)


def check_user_setting(name: str) -> None:
    """For a start by an ordinary user: a service user can only be itself. Raises LaunchError."""
    if name != user_name():
        raise LaunchError(
            f"AERO_L2_USER={name!r} needs a start by root; this one is by {user_name()}: leave it unset"
        )


def find_user(name: str) -> pwd.struct_passwd:
    """The service user, by AERO_L2_USER. Raises LaunchError."""
    try:
        user = pwd.getpwnam(name)
    except KeyError as error:
        raise LaunchError(
            f"AERO_L2_USER: there is no user {name!r} to run as; "
            f"make one (useradd --system --no-create-home {name}) or name another"
        ) from error
    if user.pw_uid == 0 or user.pw_gid == 0:
        raise LaunchError(f"AERO_L2_USER: {name!r} is root; name an ordinary user")
    return user


def _may_use(path: str, user: pwd.struct_passwd) -> bool:
    """Whether the service user, without groups, may read and write ``path``."""
    try:
        status = os.stat(path)
    except OSError:
        return True  # nothing to put a private node in place of; the first tunnel says what is missing
    if status.st_uid == user.pw_uid:
        wanted = stat.S_IRUSR | stat.S_IWUSR
    elif status.st_gid == user.pw_gid:
        wanted = stat.S_IRGRP | stat.S_IWGRP
    else:
        wanted = stat.S_IROTH | stat.S_IWOTH
    return status.st_mode & wanted == wanted


def _private_tun(user: pwd.struct_passwd) -> None:
    """Put a node of the service user's own over /dev/net/tun, in this mount namespace only."""
    mount("aero-l2", _SCRATCH, "tmpfs", Mount.NOSUID | Mount.NOEXEC, "mode=0700,size=16k")
    node = f"{_SCRATCH}/tun"
    os.mknod(node, stat.S_IFCHR | 0o600, _TUN_DEVICE)
    os.chown(node, user.pw_uid, user.pw_gid)
    mount(node, TUN, "", Mount.BIND)
    umount(_SCRATCH)


def _code_folders() -> list[Path]:
    """The folders a Python process of ours reads: the environment and where our packages are."""
    source = Path(__file__).resolve().parent.parent
    return [Path(sys.prefix), Path(sys.base_prefix), Path(os.path.realpath(sys.executable)).parent, source]


def expose(folders: Iterable[Path], uid: int) -> None:
    """Make ``folders`` reachable for ``uid`` where a parent keeps others out (root's home, say).

    Over the topmost closed parent goes an empty tmpfs that holds nothing but those folders, bound at their
    own paths. The host's files and modes stay as they are. Needs root and a private mount namespace.
    """
    closed: dict[Path, set[Path]] = {}
    for folder in folders:
        parent = _first_closed(folder, uid)
        if parent is not None:
            closed.setdefault(parent, set()).add(folder)
    for parent, inside in closed.items():
        wanted = sorted(f for f in inside if not any(other in f.parents for other in inside))
        opened = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in wanted]
        mount("aero-l2", str(parent), "tmpfs", Mount.NOSUID, "mode=0755,size=1m")
        for folder, fd in zip(wanted, opened, strict=True):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if _may_pass(os.fstat(fd), uid):
                mount(f"/proc/self/fd/{fd}", str(folder), "", Mount.BIND | Mount.REC)
            else:
                _bind_children(fd, folder)
            os.close(fd)


def _bind_children(fd: int, folder: Path) -> None:
    """What the open folder ``fd`` holds, bound into the empty ``folder``, which now has another mode."""
    for entry in os.scandir(fd):
        target = folder / entry.name
        if entry.is_symlink():
            target.symlink_to(os.readlink(entry.name, dir_fd=fd))
            continue
        if entry.is_dir():
            target.mkdir()
        else:
            target.touch()
        mount(f"/proc/self/fd/{fd}/{entry.name}", str(target), "", Mount.BIND | Mount.REC)


def check_code_is_readable() -> None:
    """Say now what would else be a traceback of a child. Raises LaunchError with the command to type."""
    source = Path(__file__).resolve().parent.parent
    files = [file for package in ("netns", "slirp", "aero_l2") for file in (source / package).rglob("*.py")]
    unreadable = [file for file in files if not os.access(file, os.R_OK)]
    if not os.access(sys.executable, os.X_OK):
        unreadable.append(Path(sys.executable))
    if unreadable or not files:
        raise LaunchError(
            f"{unreadable[0] if unreadable else source} cannot be read by user {user_name()}: "
            f"chmod -R go+rX {source}, or name another user in AERO_L2_USER"
        )


def user_name() -> str:
    """Name of who runs this, or its number."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _first_closed(folder: Path, uid: int) -> Path | None:
    """The topmost folder on the way to ``folder`` that the user may not pass through."""
    for parent in [*reversed(folder.parents), folder]:
        if not _may_pass(parent.stat(), uid):
            return parent
    return None


def _may_pass(status: os.stat_result, uid: int) -> bool:
    """Whether the user, without groups, may pass through a folder."""
    return bool(status.st_mode & (stat.S_IXUSR if status.st_uid == uid else stat.S_IXOTH))
