"""The admin socket's file: made before the namespaces and the service user, while we are who started us.

It is the service user's, with mode 0600 from its first moment (umask(2) while bind(2) makes it): the kernel
then lets that user connect and root, and nobody else (unix(7), "Pathname socket ownership and permissions").
See docs/adr/0028.
"""

import contextlib
import errno
import fcntl
import os
import pwd
import socket
import stat
from collections.abc import Iterator

from netns.errors import LaunchError

FDS_VARIABLE = "AERO_L2_ADMIN_FDS"
"""Tells the server the descriptors, with a comma between."""
BACKLOG = 64
_SETTING = "AERO_L2_ADMIN_SOCKET"
_PRIVATE = 0o177
_FOLDER_MODE = 0o700
_WRITABLE_BY_OTHERS = 0o022
_PROBE_S = 1.0


class AdminSocket:
    """One that is listened on. The server gets ``descriptors``; whoever made it calls `remove` at the end.

    listener: accepts connections. file: the socket's own inode (O_PATH), by which its mode can be looked at
    from any mount namespace.
    """

    def __init__(self, folder: int, name: str, listener: socket.socket, file: int) -> None:
        self._folder = folder
        self._name = name
        self._listener = listener
        self._file = file

    @property
    def descriptors(self) -> tuple[int, int]:
        """Listener and file."""
        return self._listener.fileno(), self._file

    def remove(self) -> None:
        """Take the file away, if it is still this one and its folder lets us; the next start replaces one
        that stays."""
        with contextlib.suppress(OSError):
            found = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
            if os.path.samestat(found, os.fstat(self._file)):
                os.unlink(self._name, dir_fd=self._folder)


def make(path: str, user: pwd.struct_passwd | None) -> AdminSocket:
    """Make the socket at ``path``, which is absolute, and listen. ``user``: whose it is to be; None: ours.

    A folder that is missing is made, for that user alone. For another user everything is done as that user,
    so that no path leads root astray; only in a folder that nobody but root may change root does it.

    Raises LaunchError with the setting and what to do.
    """
    folder, name = os.path.split(path)
    try:
        if user is None:
            return _made(folder, name, {os.geteuid()})
        ours = {0, user.pw_uid}
        try:
            with _acting_as(user):
                return _made(folder, name, ours)
        except PermissionError:
            return _made_by_root(folder, name, user, ours)
    except OSError as error:
        whose = "" if user is None else f" as the service user {user.pw_name}"
        raise LaunchError(
            f"{_SETTING}={path!r}: cannot make it{whose}: {error.strerror}: name a file in a folder which "
            "that user, or nobody but root, may change"
        ) from error


def _made(folder: str, name: str, ours: set[int]) -> AdminSocket:
    """As whoever we are now. Raises OSError, LaunchError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, _FOLDER_MODE)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _alone_in(opened, f"{folder}/{name}"):
            _clear(opened, folder, name, ours)
            return AdminSocket(opened, name, *_bound(opened, folder, name))
    except (OSError, LaunchError):
        os.close(opened)
        raise


def _made_by_root(folder: str, name: str, user: pwd.struct_passwd, ours: set[int]) -> AdminSocket:
    """As root, where nobody else can put something else in its place meanwhile. Raises OSError."""
    folder = os.path.realpath(folder)
    if not os.path.isdir(folder):
        _check_roots_own(os.path.dirname(folder), sticky_is_fine=True)
        os.mkdir(folder, _FOLDER_MODE)
        os.chown(folder, user.pw_uid, user.pw_gid)
        with _acting_as(user):
            return _made(folder, name, ours)
    _check_roots_own(folder)
    made = _made(folder, name, ours)
    os.chown(f"/proc/self/fd/{made.descriptors[1]}", user.pw_uid, user.pw_gid)
    return made


def _check_roots_own(folder: str, *, sticky_is_fine: bool = False) -> None:
    """Raises PermissionError where another user may change the folder, or take it or one above it away."""
    status = os.stat(folder, follow_symlinks=False)
    is_safe = not status.st_mode & _WRITABLE_BY_OTHERS or (sticky_is_fine and status.st_mode & stat.S_ISVTX)
    if status.st_uid != 0 or not is_safe:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if folder != os.path.dirname(folder):
        _check_roots_own(os.path.dirname(folder), sticky_is_fine=True)


@contextlib.contextmanager
def _acting_as(user: pwd.struct_passwd) -> Iterator[None]:
    """Be that user, with no groups, for what the block does to files; single-threaded. Raises OSError."""
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


@contextlib.contextmanager
def _alone_in(folder: int, path: str) -> Iterator[None]:
    """Two that start at once do not take each other's socket for one that is left over."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LaunchError(
            f"{_SETTING}={path!r}: another program has locked its folder: start again, or name another path"
        ) from error
    try:
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


def _clear(opened: int, folder: str, name: str, ours: set[int]) -> None:
    """Remove a socket of ours that nobody listens on. Raises LaunchError for anything else that is there."""
    try:
        found = os.stat(name, dir_fd=opened, follow_symlinks=False)
    except FileNotFoundError:
        return
    named = f"{_SETTING}={f'{folder}/{name}'!r}"
    if not stat.S_ISSOCK(found.st_mode):
        raise LaunchError(f"{named} is there already and is no socket: name another path")
    if found.st_uid not in ours:
        raise LaunchError(f"{named} is a socket of uid {found.st_uid}: remove it, or name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(f"{folder}/{name}")
        except ConnectionRefusedError:
            os.unlink(name, dir_fd=opened)
            return
        except TimeoutError:
            pass
    raise LaunchError(f"{named}: another program answers there, a proxy that runs already: name another path")


def _bound(opened: int, folder: str, name: str) -> tuple[socket.socket, int]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(_PRIVATE)
        try:
            listener.bind(f"{folder}/{name}")
        finally:
            os.umask(mask)
        file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener, file
