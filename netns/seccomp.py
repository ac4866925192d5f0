"""The server's last wall: a seccomp filter without which a taken-over server could still start programs.

It refuses (EPERM) to execute, to fork, to enter or make namespaces, to mount, to trace, sockets of other
families than it needs, and everything else
in `DENIED`; threads are allowed. See seccomp(2) and the kernel's userspace-api/seccomp_filter.
"""

import ctypes
import errno
import platform
import struct

from netns.errors import LaunchError
from netns.syscalls import Prctl, prctl

# Numbers: asm/unistd_64.h and asm-generic/unistd.h. From 424 on they are the same everywhere.
_COMMON = {
    "io_uring_setup": 425,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}
_X86_64 = {
    "fork": 57, "vfork": 58, "execve": 59, "ptrace": 101, "personality": 135, "pivot_root": 155,
    "chroot": 161, "mount": 165, "umount2": 166, "init_module": 175, "delete_module": 176,
    "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272,
    "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310,
    "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "kexec_file_load": 320, "bpf": 321,
    "execveat": 322, "userfaultfd": 323,
}  # fmt: skip
_AARCH64 = {
    "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "personality": 92, "unshare": 97,
    "kexec_load": 104, "init_module": 105, "delete_module": 106, "ptrace": 117, "add_key": 217,
    "request_key": 218, "keyctl": 219, "execve": 221, "perf_event_open": 241, "open_by_handle_at": 265,
    "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273,
    "bpf": 280, "execveat": 281, "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip
MACHINES = {  # AUDIT_ARCH_*, clone, socket, denied
    "x86_64": (0xC000003E, 56, 41, _X86_64 | _COMMON),
    "aarch64": (0xC00000B7, 220, 198, _AARCH64 | _COMMON),
}
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
_NETLINK, _NETLINK_ROUTE = 16, 0  # which the C library's resolver asks
_CLONE3 = 435
_CLONE_THREAD = 0x00010000
_X32_BIT = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGUMENT_0, _OFFSET_ARGUMENT_2 = 0, 4, 16, 32
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_MODE_FILTER = 2

Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, jump if true, jump if false, constant."""


def build_filter(machine: str) -> list[Instruction]:
    """The filter as classic BPF. Raises LaunchError for a machine whose numbers are not known here."""
    if machine not in MACHINES:
        raise LaunchError(f"no seccomp filter for {machine}: the server runs on x86_64 and aarch64")
    arch, clone, socket, denied = MACHINES[machine]
    refuse, missing = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    program = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, refuse),
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, missing),  # the C library then uses clone, whose flags a filter can read
    ]
    for number in sorted(denied.values()):
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    program += _socket_rules(socket, refuse)
    return [
        *program,
        (_EQUAL, 1, 0, clone),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _OFFSET_ARGUMENT_0),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, refuse),
    ]


def _socket_rules(number: int, refuse: int) -> list[Instruction]:
    """socket(2) of the families in `_FAMILIES` and of route netlink only; falls through for other calls."""
    families = [rule for family in _FAMILIES for rule in ((_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW))]
    rules = [
        (_LOAD, 0, 0, _OFFSET_ARGUMENT_0),
        *families,
        (_EQUAL, 1, 0, _NETLINK),
        (_RETURN, 0, 0, refuse),
        (_LOAD, 0, 0, _OFFSET_ARGUMENT_2),
        (_EQUAL, 0, 1, _NETLINK_ROUTE),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, refuse),
    ]
    return [(_EQUAL, 0, len(rules), number), *rules]


def install() -> None:
    """Put the calling process behind the filter, for good. Must come before its first thread.

    Raises LaunchError where the kernel has no seccomp.
    """
    program = build_filter(platform.machine())
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(buffer)))
    try:
        prctl(Prctl.SET_NO_NEW_PRIVS, 1)
        prctl(Prctl.SET_SECCOMP, _MODE_FILTER, ctypes.addressof(header))
    except OSError as error:
        raise LaunchError(f"cannot install the server's seccomp filter: {error}") from error
