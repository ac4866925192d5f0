"""How many tunnels the host allows, by each of its limits, and the sysctls that matter beside them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Final

from aero_l2.doctor.finding import Finding, note, ok, problem
from aero_l2.doctor.subject import Subject
from aero_l2.doctor.surroundings import Surroundings
from aero_l2.doctor.sysctl import sysctl
from aero_l2.policy.domains import DomainLists
from aero_l2.quota.capacity import LIMITS, Capacity, Limit, Share, capacity
from aero_l2.quota.cgroups import number
from aero_l2.quota.files import LEAST_FILES, file_budget
from aero_l2.quota.host import Host

SYSCTLS: Final = "sysctls"
PREFIX: Final = "limit: "
_WORDS: Final[dict[Limit, str]] = {
    "setting": "tunnels",
    "files": "files",
    "pids": "processes",
    "memory": "memory",
    "conntrack": "connections",
    "ports": "UDP ports",
    "tcp": "TCP memory",
}
_OUR_NAMESPACES: Final = 8
"""netd's own, and those the kernel has not taken apart yet."""
_ENTRIES_A_BUCKET: Final = 8


def limits(subject: Subject) -> Iterator[Finding]:
    """What each limit allows, as the service user meets it."""
    subject.become_user()
    yield from of_limits(subject)


def of_limits(subject: Subject) -> Iterator[Finding]:
    """The same for whom this process runs as."""
    settings = subject.settings
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < LEAST_FILES:
        text = f"{hard} file descriptors (RLIMIT_NOFILE) are too few: at least {LEAST_FILES} are needed"
        yield problem(PREFIX + "files", text, *_fix("files", "", subject.place), nofile=hard)
        return
    redirects = DomainLists.of(settings).own_dns
    captures = settings.capture_dir is not None
    budget = file_budget(hard, settings.max_pending_dns, redirects_dns=redirects, captures=captures)
    found = capacity(settings.max_connections, budget.tunnels, Host().room(0), 0)
    yield from judged(found, subject.place)


def unsaid(subject: Subject) -> Iterator[Finding]:
    """Those that the server does not log by itself when it starts: it tells of files, and of the tightest."""
    low = [one for one in of_limits(subject) if one.status != "ok"]
    notes = [one for one in low if one.status == "note" and one.check != PREFIX + _WORDS["files"]]
    tightest = min(notes, key=lambda one: int(one.facts["tunnels"] or 0), default=None)
    yield from (one for one in low if one.status == "problem" or (one in notes and one is not tightest))


def judged(found: Capacity, place: Surroundings) -> Iterator[Finding]:
    """Each limit against the number of tunnels that are wanted. Pure."""
    wanted = found.shares["setting"].tunnels
    low = [finding for name in LIMITS[1:] if (finding := _low(name, found.shares[name], wanted, place))]
    binding = found.binding
    by = {name: share.tunnels for name, share in found.shares.items()}
    if all(finding.status != "problem" for finding in low):
        yield ok("limits", found.text, binding=binding, **by)
    yield from low


def _low(name: Limit, share: Share, wanted: int | None, place: Surroundings) -> Finding | None:
    if share.tunnels is None or (wanted is not None and share.tunnels >= wanted):
        return None
    check, fix = PREFIX + _WORDS[name], _fix(name, share.by, place)
    if share.tunnels == 0:
        return problem(check, f"no tunnel fits: {share.by} leaves no room for one", *fix, tunnels=0)
    if wanted is None:
        return None
    text = f"{share.tunnels} tunnels by {share.by}, fewer than the {wanted} of AERO_L2_MAX_CONNECTIONS"
    return note(check, text, *fix, tunnels=share.tunnels)


def _fix(name: Limit, by: str, place: Surroundings) -> tuple[str, ...]:
    match name:
        case "files":
            return place.limit("LimitNOFILE=65536", "ulimit -n 65536")
        case "pids" if by.startswith("kernel."):
            return place.sysctl(by, "4194304" if by.endswith("pid_max") else "1000000")
        case "pids" if "cgroup" in by:
            return place.limit("TasksMax=infinity", "systemd-run -p TasksMax=infinity …")
        case "pids":
            return place.limit("LimitNPROC=infinity", "ulimit -u unlimited")
        case "memory" if "cgroup" in by:
            return place.limit("MemoryMax=2G", "systemd-run -p MemoryMax=2G …")
        case "conntrack":
            return place.sysctl(by, "262144")
        case "ports":
            return place.net_sysctl(by, "10240 65535")
        case _:
            return ("export AERO_L2_MAX_CONNECTIONS=…  # fewer, or take a machine with more memory",)


def sysctls(subject: Subject) -> Iterator[Finding]:
    """Those that limit something which no limit above shows."""
    low = list(_low_sysctls(subject))
    yield from low
    if not low:
        yield ok(SYSCTLS, "none stands in the way")


def _low_sysctls(subject: Subject) -> Iterator[Finding]:
    place, wanted = subject.place, subject.settings.max_connections
    name = "user.max_net_namespaces"
    most = number(sysctl(name))
    if most is not None and 0 < most < wanted + _OUR_NAMESPACES:
        text = f"{name} is {most}: fewer namespaces than {wanted} tunnels and what serves them need"
        yield note(SYSCTLS, text, *place.sysctl(name, str(max(15_000, 2 * wanted))))
    name = "net.ipv4.neigh.default.gc_thresh3"
    most = number(sysctl(name))
    if most is not None and most < 2 * wanted:
        text = f"{name} is {most}: neighbours of all namespaces share that, and each tunnel has one or two"
        yield note(SYSCTLS, text, *place.sysctl(name, str(max(4096, 4 * wanted))))
    entries, buckets = (number(sysctl(f"net.netfilter.nf_conntrack_{what}")) for what in ("max", "buckets"))
    if entries and buckets and entries > _ENTRIES_A_BUCKET * buckets:
        name = "net.netfilter.nf_conntrack_buckets"
        text = f"{name} is {buckets} for {entries} connections: finding one takes long when many are open"
        yield note(SYSCTLS, text, *place.sysctl(name, str(entries // 4)))
    if (scope := number(sysctl("kernel.yama.ptrace_scope"))) is not None and scope >= 1:
        text = (
            f"kernel.yama.ptrace_scope is {scope}: after a restart of netd a tunnel that takes too much TCP "
            "memory is ended whole, not its largest connection (docs/operations.md)"
        )
        yield ok(SYSCTLS, text, ptrace_scope=scope)
