"""What the supervisor and netd ask of the kernel, step by step, each with what to do where it is refused.

The trial (`aero_l2.doctor.trial`) does the same by the real way. Here the steps are apart, so that the one
that fails has a name; and where the rules are refused, each thing that they use is tried alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from ipaddress import IPv4Network
from typing import Final

from aero_l2.doctor.finding import Finding, note, ok, problem
from aero_l2.doctor.subject import Subject
from aero_l2.doctor.sysctl import sysctl
from aero_l2.session.spec import segment_spec
from netns import conntrack, features, link, nftables, pings, queues, ruleset, shaping, tap
from netns.errors import RulesRefused, SegmentError
from netns.programs import find_program
from netns.supervisor import NETD_CAPABILITIES
from netns.syscalls import (
    Mount,
    Namespace,
    Prctl,
    drop_bounding_set,
    mount,
    prctl,
    set_capabilities,
    unshare,
)
from netns.userns import map_only_caller

USERS: Final = "user namespaces"
MOUNTS: Final = "mounts"
NETWORKS: Final = "network namespaces"
TUN: Final = tap.DEVICE
LINKS: Final = "interfaces"
RULES: Final = "nf_tables"
FLOWS: Final = "flow events"
_SWITCHES: Final = {
    "user.max_user_namespaces": ("0", "15000"),
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
}
"""What switches user namespaces off, and the value that lets them be."""


def kernel(subject: Subject) -> Iterator[Finding]:
    """All steps, as far as they go; must be run in a process with a single thread that ends afterwards."""
    subject.become_user()
    networks, ping = link.host_networks(), pings.ping_permitted()
    for name, step, explain in (
        (USERS, _user_namespace, _why_no_users),
        (MOUNTS, _mounts, _why_no_mounts),
        (NETWORKS, _network_namespace, _why_no_networks),
    ):
        try:
            yield ok(name, step())
        except OSError as error:
            yield explain(subject, error)
            yield from (
                note(later, f"not tried: it needs {name}") for later in _after(name, (TUN, RULES, FLOWS))
            )
            return
    has_taps = yield from _taps(subject)
    yield from _rules(subject, networks, ping, has_taps=has_taps)
    yield from _flows(subject)


def _after(name: str, others: tuple[str, ...]) -> tuple[str, ...]:
    first = (USERS, MOUNTS, NETWORKS)
    return first[first.index(name) + 1 :] + others


def _user_namespace() -> str:
    uid, gid = os.geteuid(), os.getegid()
    unshare(Namespace.USER)
    map_only_caller(0, 0, uid, gid)
    return f"made by uid {uid}"


def _mounts() -> str:
    unshare(Namespace.MOUNT)
    mount("none", "/", "", Mount.REC | Mount.SLAVE)
    return "a mount namespace that passes nothing on"


def _network_namespace() -> str:
    drop_bounding_set(NETD_CAPABILITIES)
    set_capabilities(NETD_CAPABILITIES)
    prctl(Prctl.SET_NO_NEW_PRIVS, 1)
    unshare(Namespace.NET)
    most = sysctl("user.max_net_namespaces")
    return f"made; the user may have {most}" if most else "made"


def _why_no_users(subject: Subject, error: OSError) -> Finding:
    """By the switches first; what else refuses is a container's profile, or the kernel's configuration."""
    place, said = subject.place, f"refused to {subject.user}: {_reason(error)}"
    for name, (off, value) in _SWITCHES.items():
        if sysctl(name) == off:
            return problem(USERS, f"{said}; the sysctl {name} is {off}", *place.sysctl(name, value))
    if error.errno == errno.ENOSPC:
        name = "user.max_user_namespaces"
        text = f"{said}; as many as the sysctl {name} allows are in use, here or in a container around it"
        return problem(USERS, text, *place.sysctl(name, "15000"))
    if error.errno == errno.EROFS:
        remount = place.typed("mount -o remount,rw /proc")
        fix = place.unmasked() or (remount,)
        return problem(USERS, f"{said}; /proc/self/uid_map cannot be written: /proc is read-only", *fix)
    if error.errno in (errno.EPERM, errno.EACCES) and place.container is not None:
        return problem(USERS, f"{said} by the container's seccomp or AppArmor profile", *place.namespaces())
    if error.errno in (errno.EINVAL, errno.ENOSYS):
        return problem(USERS, f"{said}; the kernel has none", "boot a kernel with CONFIG_USER_NS=y")
    return problem(
        USERS, f"{said} by a security module or a seccomp filter", "journalctl -k -g 'apparmor|avc|seccomp'"
    )


def _why_no_mounts(subject: Subject, error: OSError) -> Finding:
    name = "kernel.apparmor_restrict_unprivileged_userns"
    said = f"refused in the user namespace: {_reason(error)}"
    if sysctl(name) == "1":
        return problem(MOUNTS, f"{said}; the sysctl {name} is 1", *subject.place.sysctl(name, "0"))
    if error.errno == errno.ENOSPC:
        name = "user.max_mnt_namespaces"
        return problem(MOUNTS, f"{said}; the sysctl {name} is reached", *subject.place.sysctl(name, "15000"))
    inside = subject.place.namespaces()
    where = (
        "the container's seccomp or AppArmor profile" if inside else "a security module or a seccomp filter"
    )
    return problem(MOUNTS, f"{said}, by {where}", *(inside or ("journalctl -k -g 'apparmor|avc|seccomp'",)))


def _why_no_networks(subject: Subject, error: OSError) -> Finding:
    name = "user.max_net_namespaces"
    said = f"refused in the user namespace: {_reason(error)}"
    if error.errno == errno.ENOSPC:
        text = (
            f"{said}; as many as the sysctl {name} allows are in use ({sysctl(name) or 'not readable'} here)"
        )
        return problem(NETWORKS, text, *subject.place.sysctl(name, "15000"))
    if error.errno == errno.EINVAL:
        return problem(NETWORKS, f"{said}; the kernel has none", "boot a kernel with CONFIG_NET_NS=y")
    return problem(NETWORKS, said, *subject.place.namespaces())


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _taps(subject: Subject) -> Generator[Finding, None, bool]:
    """Both TAPs of a tunnel; returns whether they are there (for `yield from`)."""
    try:
        os.close(tap.open_tap("tap0"))
        tap.make_tap("tap1")
    except SegmentError as error:
        yield problem(TUN, str(error), *_tun_fix(subject))
        return False
    yield ok(TUN, f"TAPs can be made by {subject.user}{_of_node(subject)}", mode=_mode(TUN))
    try:
        link.configure_links()
        if subject.settings.max_bytes_per_second:
            with queues.open_route() as route:
                shaping.limit(
                    route, (2, 3), subject.settings.max_bytes_per_second, subject.settings.bytes_burst
                )
    except (SegmentError, OSError) as error:
        yield problem(LINKS, str(error), *subject.place.module("sch_tbf"))
    else:
        yield ok(LINKS, "addresses, routes and forwarding are set by netlink")
    return True


def _of_node(subject: Subject) -> str:
    """Whose node it is: the host's, or the one that launch makes."""
    mode = _mode(TUN)
    shown = "" if mode is None else f", mode {mode}"
    try:
        is_own = subject.is_root and os.stat(TUN).st_uid == os.stat("/proc/self").st_uid
    except OSError:
        is_own = False
    return f", through a node of its own that serve makes as root{shown}" if is_own else shown


def _tun_fix(subject: Subject) -> tuple[str, ...]:
    """By what the node is: none, none to this user, or none of the kernel."""
    place = subject.place
    try:
        found = os.stat(TUN)
    except OSError:
        return place.device()
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(10, 200):
        return (place.typed("mknod /dev/net/tun c 10 200"),) if place.container is None else place.device()
    if not os.access(TUN, os.R_OK | os.W_OK):
        return place.device_mode()
    return place.device()


def _mode(path: str) -> str | None:
    try:
        return f"{stat.S_IMODE(os.stat(path).st_mode):04o}"
    except OSError:
        return None


def _rules(
    subject: Subject, networks: frozenset[IPv4Network], ping: bool, *, has_taps: bool
) -> Iterator[Finding]:
    """A tunnel's rules as a whole, for these settings; where they are refused, each thing they use."""
    try:
        nft = find_program("nft", "nftables", subject.search_path)
    except SegmentError:
        yield note(RULES, "not tried: it needs nft")
        return
    refusal: SegmentError | None = None
    if has_taps:
        try:
            with nftables.applied_rules(nft, ruleset.render(segment_spec(subject.settings), networks, ping)):
                pass
            yield ok(RULES, "a tunnel's rules are taken: ct, reject, nat, sets, limits, counters")
            return
        except SegmentError as error:
            refusal = error
    lacks = features.missing(nft) if refusal is None or isinstance(refusal, RulesRefused) else []
    if len(lacks) == len(features.FEATURES):
        said = refusal or lacks[0].said
        fix = ("nft list ruleset",) if "perm" in str(said).lower() else ()
        text = f"no rule at all can be loaded: {said}"
        yield problem(RULES, text, *fix, *subject.place.module("nf_tables"))
        return
    for one in lacks:
        text = f"{one.feature.name} cannot be used: {one.said} ({one.feature.option})"
        yield problem(RULES, text, *subject.place.module(one.feature.module), feature=one.feature.name)
    if not lacks and refusal is None:
        yield ok(RULES, "all that a tunnel's rules use can be loaded")
    elif not lacks:
        yield problem(RULES, f"a tunnel's rules are refused: {refusal}", *subject.place.install("nft"))


def _flows(subject: Subject) -> Iterator[Finding]:
    """nf_conntrack_netlink, by which flows are counted."""
    try:
        os.close(conntrack.open_events())
    except (SegmentError, OSError) as error:
        yield problem(FLOWS, str(error), *subject.place.module("nf_conntrack_netlink"))
    else:
        yield ok(FLOWS, "connection tracking tells of flows (nf_conntrack_netlink)")
