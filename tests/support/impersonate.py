"""Plays a process that a stranger has taken over: ``impersonate.py PID FILE``.

Takes on the user namespace, user and group ids, and capability sets of process PID, then tries to write to
FILE. Keeps the caller's mount namespace, which shows more of the machine than the process sees. Prints
``written`` or the error.
"""

import ctypes
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import procfs
from support.ns import setns

_CLONE_NEWUSER = 0x10000000
_CAPABILITY_VERSION_3 = 0x20080522
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}[os.uname().machine]
_libc = ctypes.CDLL(None, use_errno=True)


def _set_capabilities(permitted: int, effective: int, inheritable: int) -> None:
    """capset(2): two words of 32 bits for each of the three sets."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    words = [
        value >> shift & 0xFFFFFFFF for shift in (0, 32) for value in (effective, permitted, inheritable)
    ]
    if _libc.syscall(_SYS_CAPSET, header, (ctypes.c_uint32 * 6)(*words)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"capset: {os.strerror(error)}")


def _id_inside(pid: int, kind: str, outside: int) -> int:
    """An id of this machine as the namespace of ``pid`` knows it (user_namespaces(7))."""
    for line in Path(f"/proc/{pid}/{kind}_map").read_text().splitlines():
        inside, first, count = map(int, line.split())
        if first <= outside < first + count:
            return inside + outside - first
    raise LookupError(f"{kind} {outside} of process {pid} is not mapped")


def _become(pid: int) -> None:
    about = procfs.status(pid)
    user, group = int(about["Uid"].split()[1]), int(about["Gid"].split()[1])
    user_inside, group_inside = _id_inside(pid, "uid", user), _id_inside(pid, "gid", group)
    permitted, effective, inheritable = (int(about[name], 16) for name in ("CapPrm", "CapEff", "CapInh"))
    os.setgroups([int(entry) for entry in about["Groups"].split()])
    if procfs.link_of(f"/proc/{pid}/ns/user") != procfs.link_of("/proc/self/ns/user"):
        with Path(f"/proc/{pid}/ns/user").open("rb") as file:
            setns(file.fileno(), _CLONE_NEWUSER)
    _libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS: the sets are cut down below, not by the change of user
    os.setresgid(group_inside, group_inside, group_inside)
    os.setresuid(user_inside, user_inside, user_inside)
    _set_capabilities(permitted, effective, inheritable)
    own = procfs.status(os.getpid())  # shows ids as the reader's user namespace knows them
    taken_on = (int(own["Uid"].split()[1]), int(own["Gid"].split()[1]), own["CapEff"])
    assert taken_on == (user_inside, group_inside, about["CapEff"]), taken_on


def _try(path: Path) -> str:
    try:
        with path.open("a") as file:
            file.write("taken over\n")
    except OSError as error:
        return type(error).__name__
    return "written"


if __name__ == "__main__":
    _become(int(sys.argv[1]))
    print(_try(Path(sys.argv[2])))
