"""The machine, its clock, the user: what can be seen without making anything."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from typing import Final

from aero_l2.doctor.finding import Finding, note, ok, problem
from aero_l2.doctor.subject import Subject
from aero_l2.observe import outside
from netns import seccomp, users
from netns.errors import LaunchError
from netns.pings import ping_permitted

HOST: Final = "host"
CLOCK: Final = "clock"
USER: Final = "service user"
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
        group = outside.group()
        text = f"guests' pings to the internet are refused: group {group} is not in {name}; all else works"
        yield note("pings", text, *subject.place.net_sysctl(name, "0 2147483647"))
