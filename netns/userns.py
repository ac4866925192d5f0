"""Entering a user namespace, and giving every capability up: user_namespaces(7), capabilities(7)."""

import os

from netns.syscalls import (
    SECUREBITS_LOCKED,
    Mount,
    Namespace,
    Prctl,
    drop_bounding_set,
    mount,
    prctl,
    set_capabilities,
    unshare,
)


def enter_user_namespace(uid: int, gid: int, more: Namespace = Namespace.MOUNT) -> None:
    """Be ``uid`` and ``gid`` in a new user namespace that maps only the caller, with all capabilities there.

    Its mount namespace, always a new one, passes no mount on. ``more``: further namespaces that are new. The
    process must have a single thread. Raises OSError.
    """
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    unshare(Namespace.USER | Namespace.MOUNT | more)
    map_only_caller(uid, gid, outer_uid, outer_gid)
    mount("none", "/", "", Mount.REC | Mount.SLAVE)


def map_only_caller(uid: int, gid: int, outer_uid: int, outer_gid: int) -> None:
    """In a user namespace that is new: who made it, as ``outer_uid``, is ``uid`` there. Raises OSError."""
    write_at_once("/proc/self/setgroups", "deny")
    write_at_once("/proc/self/uid_map", f"{uid} {outer_uid} 1")
    write_at_once("/proc/self/gid_map", f"{gid} {outer_gid} 1")


def give_up_capabilities() -> None:
    """None is left, and no program of this process gains one by being root. Raises OSError."""
    drop_bounding_set()
    prctl(Prctl.SET_SECUREBITS, SECUREBITS_LOCKED)
    set_capabilities()


def write_at_once(path: str, text: str) -> None:
    """Write a file of /proc by one write(2); the kernel reports some refusals only at the close."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
