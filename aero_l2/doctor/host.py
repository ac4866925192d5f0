"""The machine, its clock, the user and the programs: what can be seen without making anything."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from typing import Final

from aero_l2.doctor.finding import Finding, note, ok, problem
from aero_l2.doctor.subject import Subject
from netns import features, seccomp, users
from netns.errors import LaunchError, SegmentError
from netns.hosts import ping_permitted
from netns.programs import find_program
from slirp import features as slirp_features
from slirp.errors import NatError, NatUnsuitable
from slirp.slirp4netns import Slirp4netns

HOST: Final = "host"
CLOCK: Final = "clock"
USER: Final = "service user"
NFT: Final = "nft"
SLIRP: Final = "slirp4netns"
SECCOMP: Final = "seccomp"
_RELEASED: Final = 1_767_225_600
"""2026-01-01: no clock of a host that runs this shows an earlier time."""
_LAST: Final = 4_102_444_800
"""2100-01-01."""


def machine(subject: Subject) -> Iterator[Finding]:
    """Distribution, kernel, container."""
    name = platform.machine()
    if name not in seccomp.MACHINES:
        yield problem(HOST, f"{name}: the server runs on {' and '.join(seccomp.MACHINES)}", machine=name)
    yield ok(
        HOST,
        subject.place.text,
        machine=name,
        kernel=platform.release(),
        container=subject.place.container,
    )


def clock(subject: Subject) -> Iterator[Finding]:
    """Whether it shows a possible time."""
    yield from clock_at(time.time(), subject)


def clock_at(now: float, subject: Subject) -> Iterator[Finding]:
    """The same for a time. now: unix seconds."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if _RELEASED <= now < _LAST:
        yield ok(CLOCK, shown, unix_seconds=round(now))
        return
    yield problem(
        CLOCK,
        f"{shown} cannot be: credentials would expire at the wrong time",
        subject.place.typed("timedatectl set-ntp true"),
        unix_seconds=round(now),
    )


def service_user(subject: Subject) -> Iterator[Finding]:
    """Whether the service user can be become, and read the program."""
    user = subject.user
    try:
        if subject.is_root:
            subject.become_user()
        elif subject.settings.user:
            users.check_user_setting(subject.settings.user)
        users.check_code_is_readable()
    except LaunchError as error:
        yield problem(USER, str(error), *_user_fix(str(error), subject))
        return
    by = "which root becomes" if subject.is_root else "as started"
    yield ok(
        USER, f"{user}, {by}: uid {os.getuid()}, gid {os.getgid()}, and the program can be read", user=user
    )


def _user_fix(said: str, subject: Subject) -> tuple[str, ...]:
    place = subject.place
    if "there is no user" in said:
        shell = "--shell /usr/sbin/nologin"
        return (place.typed(f"useradd --system --no-create-home {shell} {subject.user}"),)
    if "chmod -R" in said:
        return (place.typed(said.partition(": ")[2].partition(",")[0]),)
    if "needs a start by root" in said:
        return ("unset AERO_L2_USER",)
    if "is root" in said:
        return ("export AERO_L2_USER=aero-l2",)
    if "without its capabilities" in said or "cannot become" in said:
        return place.namespaces() or ("start it as an ordinary user",)
    return ()


def nft(subject: Subject) -> Iterator[Finding]:
    """nft(8): there, and it runs."""
    subject.become_user()
    try:
        program = find_program("nft", "nftables", subject.search_path)
    except SegmentError as error:
        yield problem(NFT, str(error), *subject.place.install("nft"))
        return
    try:
        said = features.version(program)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield problem(NFT, f"{program} cannot be run: {error}", *subject.place.install("nft"))
        return
    if "nftables v" not in said:
        yield problem(NFT, f"{program} --version: {said}", *subject.place.install("nft"))
        return
    yield ok(
        NFT, f"{said.partition(' (')[0]}, {program}", path=program, version=said.split(" v")[1].split()[0]
    )


def slirp4netns(subject: Subject) -> Iterator[Finding]:
    """slirp4netns: there, and with the options that isolation depends on."""
    subject.become_user()
    install = subject.place.install("slirp4netns")
    try:
        program = Slirp4netns(subject.search_path).program()
        found = slirp_features.probe(program)
    except NatUnsuitable as error:
        yield problem(SLIRP, str(error), *install)
    except (NatError, OSError) as error:
        yield problem(SLIRP, str(error), *install)
    else:
        text = f"slirp4netns {found.version}, {program}, with sandbox and seccomp"
        yield ok(SLIRP, text, path=program, version=found.version)


def filter_of_calls(subject: Subject) -> Iterator[Finding]:
    """Whether the kernel takes the server's seccomp filter; it is this process's then."""
    subject.become_user()
    try:
        seccomp.install()
    except LaunchError as error:
        inside = subject.place.container is not None
        fix = subject.place.namespaces() if inside else ("boot a kernel with CONFIG_SECCOMP_FILTER=y",)
        yield problem(SECCOMP, str(error), *fix)
        return
    yield ok(SECCOMP, "the server's filter of system calls is taken")


def pings(subject: Subject) -> Iterator[Finding]:
    """Whether guests' pings to the internet can leave."""
    subject.become_user()
    yield from pings_of_this(subject)


def pings_of_this(subject: Subject) -> Iterator[Finding]:
    """The same for whom this process runs as."""
    name = "net.ipv4.ping_group_range"
    if ping_permitted():
        yield ok("pings", f"guests' pings to the internet pass ({name})")
    else:
        text = (
            f"guests' pings to the internet are refused: group {os.getgid()} is not in {name}; all else works"
        )
        yield note("pings", text, *subject.place.net_sysctl(name, "0 2147483647"))
