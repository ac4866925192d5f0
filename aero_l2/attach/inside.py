"""The process that becomes a command behind a tunnel: ``python -m aero_l2.attach.inside FD COMMAND …``.

It makes namespaces (user, network, mount) and in them a TAP with the guest's address, gives the TAP away over
the socket FD, waits for the word to go, gives up every privilege and becomes the command. Nothing of it
happens in the process that holds the tunnel.

user_namespaces(7), network_namespaces(7), mount_namespaces(7), capabilities(7); docs/connect.md says what
this is good for and what not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from aero_l2.attach.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_OWN_FAULT, AttachError
from aero_l2.attach.tapdevice import open_tap
from aero_l2.attach.words import GO, READY
from netns.netlink import attribute
from netns.syscalls import Mount, Namespace, Prctl, mount, prctl, umount
from netns.userns import enter_user_namespace, give_up_capabilities, write_at_once

TAP: Final = "tap0"
GATEWAY: Final = "10.0.2.2"
ADDRESS, PREFIX_LENGTH = "10.0.2.15", 24
MTU: Final = 1500
RESOLV_CONF: Final = f"# The network behind aero-l2 connect.\nnameserver {GATEWAY}\noptions edns0\n"
RESOLVERS: Final = (
    "/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/resolve/io.systemd.Resolve.Monitor",
    "/run/avahi-daemon/socket",
)
"""Sockets by which a program may look names up without the network."""

_STAGING: Final = "/tmp"
_ADDR_GEN_NONE: Final = attribute(socket.AF_INET6, attribute(8, b"\x01"))  # linux/if_link.h
_SYSCTLS: Final = (
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
)


class NoNamespace(AttachError):
    """The system does not let us have a network of our own."""


def why_no_namespace(error: OSError) -> str:
    """What keeps us from making namespaces, and what to do."""
    for file, closed, fix in _SYSCTLS:
        try:
            value = Path("/proc/sys", file).read_text().strip()
        except OSError:
            continue
        if value == closed:
            return f"user namespaces are turned off on this machine: have root run sysctl -w {fix}"
    return (
        f"this machine does not let you make user namespaces ({error.strerror}): "
        "in a container, start it with that right"
    )


def own_nsswitch(text: str) -> str:
    """nsswitch.conf(5) with host names looked up in /etc/hosts and by DNS, and nowhere else."""
    kept = re.sub(r"^[ \t]*hosts[ \t]*:.*$\n?", "", text, flags=re.MULTILINE)
    return f"{kept}{'' if not kept or kept.endswith(chr(10)) else chr(10)}hosts: files dns\n"


def _enter() -> None:
    try:
        enter_user_namespace(os.geteuid(), os.getegid(), Namespace.NET)
    except OSError as error:
        raise NoNamespace(why_no_namespace(error)) from None


def _configure() -> None:
    """Addresses and routes; no IPv6 address but loopback's."""
    try:
        index = socket.if_nametoindex(TAP)
        with IPRoute() as route:
            route.link("set", index=socket.if_nametoindex("lo"), state="up")
            route.link("set", index=index, family=socket.AF_UNIX, IFLA_AF_SPEC=_ADDR_GEN_NONE)
            route.link("set", index=index, mtu=MTU, state="up")
            route.addr("add", index=index, address=ADDRESS, prefixlen=PREFIX_LENGTH)
            route.route("add", dst="0.0.0.0/0", gateway=GATEWAY, oif=index)
    except (NetlinkError, OSError) as error:
        raise NoNamespace(f"cannot set up the network of the command: {error}") from None
    with contextlib.suppress(OSError):  # ping works without it as root
        write_at_once("/proc/sys/net/ipv4/ping_group_range", f"{os.getegid()} {os.getegid()}")


def _cover() -> None:
    """Show the command a resolv.conf and nsswitch.conf of its own, and no resolver's socket of this host."""
    files = {"/etc/resolv.conf": RESOLV_CONF}
    with contextlib.suppress(FileNotFoundError):
        files["/etc/nsswitch.conf"] = own_nsswitch(
            Path("/etc/nsswitch.conf").read_text(errors="surrogateescape")
        )
    try:
        mount("tmpfs", _STAGING, "tmpfs", Mount.NOSUID, "mode=755,size=1m")
        for number, (target, text) in enumerate(files.items()):
            source = Path(_STAGING, str(number))
            source.write_text(text, errors="surrogateescape")
            source.chmod(0o644)
            if not Path(target).exists():
                raise NoNamespace(f"{target} does not exist: make an empty file for it to be covered by ours")
            mount(str(source), target, "", Mount.BIND)
        umount(_STAGING)
        for target in RESOLVERS:
            if Path(target).exists():
                mount("/dev/null", target, "", Mount.BIND)
    except OSError as error:
        raise NoNamespace(f"cannot give the command a resolv.conf of its own: {error.strerror}") from None


def _give_up_privileges() -> None:
    """No capability, and none to be had by any program."""
    give_up_capabilities()
    prctl(Prctl.SET_NO_NEW_PRIVS, 1)


def _become(command: list[str]) -> NoReturn:
    """Run the command with signals as whoever called us had them. Raises OSError.

    A folder on the PATH that we may not search does not count, as in a shell: execvp(3) would say EACCES.
    """
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTTOU):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(command[0], command)
    except PermissionError:
        name = command[0]
        if "/" in name or any(os.path.lexists(os.path.join(folder, name)) for folder in os.get_exec_path()):
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None


def main() -> NoReturn:
    """Say READY with the TAP, or a line about what is missing; after GO, a line only if it cannot be run."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(channel.fileno(), False)
    command = sys.argv[2:]
    try:
        _enter()
        tap = open_tap(TAP)
        _configure()
        _cover()
        _give_up_privileges()
        prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)  # by the main thread there; before READY, so in time
    except (AttachError, OSError) as error:
        channel.send(str(error).encode())
        sys.exit(EXIT_OWN_FAULT)
    socket.send_fds(channel, [READY], [tap])
    os.close(tap)
    if channel.recv(16) != GO:
        sys.exit(EXIT_OWN_FAULT)
    try:
        _become(command)
    except OSError as error:
        channel.send(f"cannot run {command[0]}: {error.strerror}".encode())
        sys.exit(EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE)


if __name__ == "__main__":
    main()
