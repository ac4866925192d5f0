# ruff: noqa: SIM115
"""Plays a server that an attacker took over: tries every way out it can think of, reports what happened."""

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys

from netns import messages, netlink, seccomp
from netns.spec import SegmentSpec
from netns.syscalls import Mount, Namespace, mount, setns, unshare

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206


def netd_pid(launch: int) -> int:
    """The supervisor's other child."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with open(f"/proc/{entry}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            if int(fields[1]) == launch:
                return int(entry)
    raise AssertionError("no netd")


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def read_memory(pid: int) -> None:
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    checked(libc.process_vm_readv(pid, vector, 1, vector, 1, 0))


def tunnel_sockets(netd: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Those of a tunnel's connection tracking and of its refused packets, as netd hands them over."""
    messages.send(netd, messages.Create(1, SegmentSpec(audit=True)))
    names = messages.handle_names(redirects_dns=False, audits=True)
    while True:
        data, descriptors = messages.receive(netd)
        if isinstance(messages.decode_answer(data), messages.Made):
            handles = dict(zip(names, descriptors, strict=True))
            return socket.socket(fileno=handles["flows"]), socket.socket(fileno=handles["denials"])


def ask(connection: socket.socket, operation: int, flags: int) -> None:
    """A request of ctnetlink (linux/nfnetlink_conntrack.h), answered by an error or by what was asked for."""
    connection.send(struct.pack("=IHHIIBBH", 20, 0x100 | operation, 1 | flags, 1, 0, socket.AF_INET, 0, 0))
    for kind, payload in netlink.split(connection.recv(65536)):
        if kind == 2:
            netlink.raise_error(payload)


def configure_log(connection: socket.socket, attribute: bytes, group: int = 1) -> None:
    """A request of nfnetlink_log (linux/netfilter/nfnetlink_log.h)."""
    body = struct.pack("=BB", socket.AF_UNSPEC, 0) + group.to_bytes(2) + attribute
    connection.send(struct.pack("=IHHII", 16 + len(body), 0x401, 5, 1, 0) + body)
    for kind, payload in netlink.split(connection.recv(65536)):
        if kind == 2:
            netlink.raise_error(payload)


def main() -> None:
    behind_seccomp, root_file = sys.argv[1] == "seccomp", sys.argv[2]
    control = socket.socket(fileno=int(os.environ["AERO_L2_CONTROL_FD"]))
    _, received, _, _ = socket.recv_fds(control, 64, 1)
    netd = socket.socket(fileno=received[0])
    messages.receive(netd)  # so that netd is up
    if behind_seccomp:
        seccomp.install()
    tracking, refused = tunnel_sockets(netd)
    tracking.settimeout(5)
    refused.settimeout(5)
    launch, helper = os.getppid(), netd_pid(os.getppid())
    attempts = {
        "write root's file": lambda: open(root_file, "w"),
        "chown root's file": lambda: os.chown(root_file, 0, 0),
        "mount": lambda: mount("none", "/mnt", "tmpfs", 0),
        "bind mount": lambda: mount("/etc", "/mnt", "", Mount.BIND),
        "network namespace": lambda: unshare(Namespace.NET),
        "netd's network namespace": lambda: setns(
            os.open(f"/proc/{helper}/ns/net", os.O_RDONLY), Namespace.NET
        ),
        "own network namespace again": lambda: setns(
            os.open("/proc/self/ns/net", os.O_RDONLY), Namespace.NET
        ),
        "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
        "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0),
        "new TAP": lambda: __import__("netns.tap").tap.open_tap("tap9"),
        "low port": lambda: socket.create_server(("127.0.0.1", 81)),
        "trace netd": lambda: checked(libc.ptrace(PTRACE_SEIZE, helper, 0, 0)),
        "trace launch": lambda: checked(libc.ptrace(PTRACE_SEIZE, launch, 0, 0)),
        "netd's memory": lambda: open(f"/proc/{helper}/mem", "r+b"),
        "launch's memory": lambda: open(f"/proc/{launch}/mem", "r+b"),
        "netd's memory by readv": lambda: read_memory(helper),
        "netd's descriptors": lambda: os.open(f"/proc/{helper}/fd/3", os.O_RDWR),
        "where netd's descriptors lead": lambda: os.readlink(f"/proc/{helper}/fd/3"),
        "netd's environment": lambda: open(f"/proc/{helper}/environ").read(),
        "become another user": lambda: os.setuid(1),
        "chroot": lambda: os.chroot("/tmp"),
        "host name": lambda: socket.sethostname("owned"),
        "list connections": lambda: ask(tracking, 1, 0x300),
        "forget connections": lambda: ask(tracking, 2, 4),
        "make a connection": lambda: ask(tracking, 0, 0x404),
        "other groups": lambda: tracking.setsockopt(270, 1, 7),  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
        "speak to other processes": lambda: tracking.sendto(bytes(20), (helper, 0)),
        "read without the filter": lambda: tracking.setsockopt(socket.SOL_SOCKET, 27, bytes(4)),
        "copy whole packets": lambda: configure_log(
            refused, netlink.attribute(2, struct.pack("!IBx", 65535, 2))
        ),
        "hear of another log": lambda: configure_log(refused, netlink.attribute(1, bytes([1])), 2),
        "list connections by the log": lambda: ask(refused, 1, 0x300),
        "other groups by the log": lambda: refused.setsockopt(270, 1, 1),
        "read the log without the filter": lambda: refused.setsockopt(socket.SOL_SOCKET, 27, bytes(4)),
        "read the log with another filter": lambda: refused.setsockopt(socket.SOL_SOCKET, 26, bytes(16)),
        "keep capabilities": lambda: checked(libc.prctl(28, 0, 0, 0, 0)),
    }
    if behind_seccomp:
        attempts |= {
            "user namespace": lambda: unshare(Namespace.USER),
            "fork": os.fork,
            "execute": lambda: os.execv("/bin/true", ["true"]),
            "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
            "run": lambda: subprocess.run(["true"], check=False),
        }
    print(json.dumps({name: outcome(attempt) for name, attempt in attempts.items()}), flush=True)
    os._exit(0)


def outcome(attempt: object) -> str:
    """refused, or what it got."""
    try:
        got = attempt()  # type: ignore[operator]
    except Exception as error:
        return f"refused: {error}"
    return f"GOT {got!r}"


main()
